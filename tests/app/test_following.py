"""Which requests are decided by another release of the group, and until when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.app.asking import explain_request
from controlplane.app.taking import order
from controlplane.app.treatment import Treatment
from controlplane.release.ports import World
from controlplane.release.state import RETURNING, Phase
from controlplane.web.asked import Asked

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HEADER = "version_header: x-turnout-version\n"
FLEETS = {
    f"{kind}-fleet": f"kind: Fleet\nname: {kind}\nnodes: {{cluster: {kind}}}\nlisteners: [{listener}]\n"
    for kind, listener in {
        "inside": '{name: in, address: "127.0.0.1:9090", kind: local}',
        "sidecar": '{name: out, address: "127.0.0.1:15001", kind: transparent}',
        "own": "{name: own, kind: adopt}",
        "calls": "{name: calls, kind: grpc}",
    }.items()
}
EVERY = ("edge", "inside", "sidecar", "own", "calls")
OLD, NEW = ("front=v1", "back~v1"), ("front=v2", "back~v2")


@pytest.fixture
def worlds(kit):
    def make(header=HEADER, v2='"10.0.0.2:80"', **phases):
        """Return a world with releases of two services in one group."""
        texts = {}
        for name, line in (("front", HEADER), ("back", header)):
            text = kit.SERVICE.replace("shop", name).replace("[edge]", f"[{', '.join(EVERY)}]")
            texts[name] = text.replace('"10.0.0.2:80"', v2) + line
            release = kit.RELEASE.replace("shop", name).replace("start:", "group: summer\nstart:")
            texts[f"{name}-order"] = release
        policy = kit.POLICY.replace("{cookie: {name: staff", "{header: {name: x-staff")
        catalog = kit.load(kit.files(shop=None, quick=policy, **FLEETS, **texts)).catalog
        states = {}
        for document in catalog.releases():
            phase = phases.get(document.service, Phase.PROGRESSING)
            states[document.name] = order(catalog, document, NOW).model_copy(update={"phase": phase})
        assert len(states) == 2
        return World(1, catalog, 1, {"front": "v1", "back": "v1"}, states)

    return make


def told(world, service="back", fleet="inside", treatment=None):
    """Return (value of the header, version) of what is decided elsewhere, in order."""
    traffic = (treatment or Treatment()).of(world, world.catalog.fleet(fleet))[service]
    return [
        (split.match.header.equals, f"{service}~{traffic.canary if split.buckets else traffic.stable}")
        for split in traffic.splits
        if split.segment == "followed"
    ]


@pytest.mark.parametrize("fleet", EVERY)
def test_each_follows_the_other_where_nobody_from_outside_is_believed(worlds, fleet):
    believed = fleet in ("inside", "sidecar", "calls")

    assert told(worlds(), fleet=fleet) == ([OLD, NEW] if believed else [])
    assert len(told(worlds(), "front", fleet)) == (2 if believed else 0)


@pytest.mark.parametrize("front", Phase)
@pytest.mark.parametrize("back", Phase)
def test_following_begins_and_ends_with_the_traffic_of_both(worlds, front, back):
    leads = front in (Phase.PROGRESSING, Phase.GUARDING, *RETURNING)
    follows = back in (Phase.PROGRESSING, Phase.GUARDING)

    assert told(worlds(front=front, back=back)) == ([OLD, NEW] if leads and follows else [])


def test_nobody_follows_another_header_another_attempt_or_to_a_version_without_endpoints(worlds):
    world = worlds()
    front = world.releases["front-2"]
    again = front.model_copy(update={"attempt": 2})
    other = front.model_copy(update={"group": "winter"})
    none = front.model_copy(update={"group": ""})

    assert told(worlds(header="version_header: x-other\n")) == []
    assert told(worlds(header="")) == []
    assert told(worlds(v2="")) == []
    for state in (again, other, none):
        assert told(replace(world, releases={**world.releases, "front-2": state})) == []


def test_what_is_kept_from_world_to_world_knows_of_the_others(worlds):
    treatment, both = Treatment(), worlds()
    seen = []
    for phase in (Phase.WAITING, Phase.PROGRESSING, Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.GUARDING):
        front = both.releases["front-2"].model_copy(update={"phase": phase})
        world = replace(both, releases={**both.releases, "front-2": front})
        kept = treatment.of(world, world.catalog.fleet("inside"))
        assert dict(kept) == dict(Treatment().of(world, world.catalog.fleet("inside")))
        seen.append(len(told(world, treatment=treatment)))

    assert seen == [0, 2, 2, 0, 2]


def test_a_request_that_follows_is_explained(worlds):
    asked = "GET https://back.example.com/ x-turnout-version: front=v2"
    inside = explain_request(worlds(), Asked(request=asked, fleet="inside"))
    edge = explain_request(worlds(), Asked(request=asked, fleet="edge"))

    assert (inside.segment, inside.version, inside.rule) == ("followed", "v2", 2)
    assert "another release of its group has decided" in inside.because
    assert (edge.segment, edge.version) == ("anonymous", "v1")
