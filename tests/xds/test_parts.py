"""A route of several owners: what one part must wait for does not hold back the others."""

from __future__ import annotations

import pytest
from talk import Talk

from controlplane.xds.mixtures import alike
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE

NEW = {"a": (2, "a1"), "b": (1, "b1")}


@pytest.fixture(params=["hollow", "refused"])
def site(request, talk, model):
    """A client that has a route of the owners ``a`` and, once it was told to, cannot use cluster ``b1``."""
    return Site(talk, model, request.param)


class Site:
    def __init__(self, talk, model, trouble):
        self.talk, self.model, self.trouble = talk, model, trouble
        self.revision = 0

    def world(self, owners, clusters, hollow=()):
        self.revision += 1
        model = self.model
        ends = [
            model.resource(
                c, f"{c in hollow}", revision=self.revision, follows=(CLUSTER, c), hollow=c in hollow
            )
            for c in clusters
        ]
        found = [model.resource(c, "1") for c in clusters]
        return (
            (CLUSTER, *found),
            (ENDPOINT, *ends),
            (ROUTE, model.shared("r", owners, revision=self.revision)),
        )

    def set(self, owners, clusters="a1 a2 b1", hollow=None):
        """Publish, and let the client answer until there is rest; return the bodies of the routes it got."""
        clusters = clusters.split()
        bad = {"b1"} if self.trouble == "hollow" else set()
        groups = self.world(owners, clusters, bad if hollow is None else hollow)
        return self.rest(self.talk.publish(self.revision, *groups))

    def rest(self, heard):
        routes = []
        for _ in range(20):
            last = dict(self.talk.last)
            self.talk.last = {}
            for url, message in last.items():
                sotw = self.talk.variant == "sotw"
                bodies = [r.value if sotw else r.resource.value for r in message.resources]
                if url == ROUTE:
                    routes += bodies
                names = {CLUSTER: (), ENDPOINT: self.ends, ROUTE: ["q", "r"]}[url] if sotw else ()
                bad = url == CLUSTER and self.trouble == "refused" and b"b1=1" in bodies
                self.talk.ask(url, names, nonce=message.nonce, error="no" if bad else "")
            if not last:
                return routes
        raise AssertionError("no rest")

    def start(self, owners, clusters="a1 a2"):
        self.ends = ["a1", "a2", "b1", "b2"]
        self.set(owners, clusters, hollow=())
        for url, names in ((CLUSTER, ()), (ENDPOINT, self.ends), (ROUTE, ["q", "r"])):
            self.talk.ask(url, names)
        return self.rest([])


def test_a_new_part_that_must_wait_does_not_hold_back_a_rollback(site):
    site.start({"a": (1, "a2")})

    added = site.set({"a": (1, "a2"), "b": (1, "b1")})
    rolled_back = site.set(NEW)
    again = site.set(NEW)

    assert added == []  # the client has that much of it
    assert rolled_back == [b"r=a2:a1"]
    assert again == []
    assert site.talk.view(ROUTE).gated["r"][1] == "b1"


def test_what_waited_goes_when_it_may_and_nothing_is_said_to_wait(site, model):
    site.start({"a": (1, "a2")})
    site.set(NEW)

    site.trouble = ""
    healed = site.set({"a": (2, "a1"), "b": (2, "b2")}, "a1 a2 b2")

    assert healed == [b"r=a2.b2:a1,b2"]
    view = site.talk.view(ROUTE)
    assert (view.gated, view.partial) == ({}, {})
    assert view.acked["r"] == model.shared("r", {"a": (2, "a1"), "b": (2, "b2")}).version


def test_a_part_that_the_client_has_stays_where_it_is(site):
    """Make before break holds for each part; its cluster stays, though the target has left it."""
    site.start({"a": (1, "a2"), "b": (1, "b2")}, "a1 a2 b2")

    moved = site.set({"a": (2, "a1"), "b": (2, "b1")})
    back = site.set({"a": (3, "a1"), "b": (3, "b2")}, "a1 a2 b2")

    assert moved == [b"r=a2.b1:a1,b2"]
    assert back == [b"r=a3.b3:a1,b2"]


def test_a_part_that_is_rolled_back_is_not_held_by_what_it_leaves(site):
    """It goes back to what the client has, whatever became of the canary's cluster."""
    site.start({"a": (1, "a1"), "b": (1, "b2")}, "a1 a2 b2")

    held = site.set({"a": (1, "a1"), "b": (2, "b1")}, "a1 a2 b1 b2")
    back = site.set({"a": (1, "a1"), "b": (1, "b2")}, "a1 a2 b2")

    assert (held, back) == ([], [])  # it never left
    assert site.talk.view(ROUTE).gated == {}


def test_a_part_is_alike_by_what_is_in_it(model):
    one = model.shared("r", {"a": (1, "a1"), "b": (1, "b1")})
    other = model.shared("r", {"a": (1, "a1"), "b": (2, "b1")})
    without = model.shared("r", {"a": (1, "a1")})

    assert alike(one, other, "a")
    assert not alike(one, other, "b")
    assert not alike(one, without, "b")
    assert alike(one, without, "a")


def again(site, version):
    """The client comes back on a stream of its own, to a process that may know what it was sent."""
    talk = site.talk = Talk(site.model, site.talk.variant)
    talk.ask(CLUSTER)
    talk.ask(ENDPOINT, site.ends)
    claim = (
        {"version_info": str(version)}
        if talk.variant == "sotw"
        else {"initial_resource_versions": {"r": str(version)}}
    )
    talk.ask(ROUTE, ["r"], **claim)


def test_a_client_that_brings_a_mixture_stays_on_its_part(delta, model):
    """A delta client says what it has of a route, and who made it knows it again."""
    site = Site(delta, model, "refused")
    site.start({"a": (1, "a2"), "b": (1, "b2")}, "a1 a2 b2")
    site.set({"a": (2, "a1"), "b": (2, "b1")}, "a1 a2 b1 b2")
    mixed = site.talk.view(ROUTE).acked["r"]

    again(site, mixed)
    first = site.set({"a": (2, "a1"), "b": (2, "b1")}, "a1 a2 b1 b2")
    later = site.set({"a": (3, "a1"), "b": (2, "b1")}, "a1 a2 b1 b2")

    assert (first, later) == ([], [b"r=a3.b1:a1,b2"])


def test_what_a_client_brought_and_nobody_knows_does_not_hold_back_for_ever(site):
    """Its version may have what was taken back. So a part that waits in vain goes as to one that is new."""
    site.ends = ["a1", "a2", "b1", "b2"]
    again(site, "1.0123")

    assert site.set(NEW) == [b"r=a2.b1:a1,b1"]


def test_what_a_client_brought_waits_for_what_is_on_its_way(site):
    site.trouble = ""
    site.ends = ["a1", "a2", "b1", "b2"]
    again(site, "1.0123")
    groups = site.world(NEW, ["a1", "b1"])

    before = site.talk.publish(1, *groups)
    after = site.rest(before)

    assert ["r"] not in before
    assert after == [b"r=a2.b1:a1,b1"]


def test_an_owner_that_comes_from_another_resource_keeps_its_part(site):
    """Who shares hosts with whom changes, and with it the name of their route."""
    site.start({"a": (1, "a2"), "b": (1, "b2")}, "a1 a2 b2")
    owners = {"a": (2, "a1"), "b": (2, "b1"), "c": (1, "b1")}
    empty = {"b1"} if site.trouble == "hollow" else ()
    *groups, _ = site.world({}, ["a1", "a2", "b1", "b2"], empty)

    heard = site.rest(site.talk.publish(9, *groups, (ROUTE, site.model.shared("q", owners))))

    assert heard == [b"q=a2.b1:a1,b2"]


# -- a part that the client refuses


class Choosy:
    """A client that has clusters, and refuses any route with a part that it does not like."""

    def __init__(self, talk, model):
        self.talk, self.model, self.dislikes, self.revision = talk, model, set(), 0
        self.names = talk.repeated("r")

    def start(self, owners):
        self.set(owners)
        for url, names in ((CLUSTER, ()), (ROUTE, ["r"])):
            self.talk.ask(url, names)
        self.talk.ack(CLUSTER)
        self.answer()

    def set(self, owners):
        self.revision += 1
        self.target = self.model.shared("r", {o: (content, "c") for o, content in owners.items()})
        self.talk.publish(self.revision, (CLUSTER, self.model.resource("c")), (ROUTE, self.target))
        return self.answer() if self.revision > 1 else []

    def answer(self):
        """Answer until there is rest; return the owners' contents in each route that came."""
        seen = []
        while (message := self.talk.last.pop(ROUTE, None)) is not None:
            (resource,) = message.resources
            body = resource.value if self.talk.variant == "sotw" else resource.resource.value
            parts = self.model.owned(body)
            seen.append(" ".join(parts))
            assert len(seen) < 12
            error = "bad" if self.dislikes & set(parts) else ""
            self.talk.ask(ROUTE, self.names, nonce=message.nonce, error=error)
        return seen


@pytest.fixture
def choosy(talk, model):
    return Choosy(talk, model)


def test_a_part_that_was_refused_does_not_take_a_rollback_with_it(choosy):
    choosy.start({"a": 1, "b": 1})
    choosy.dislikes = {"b2"}
    step = choosy.set({"a": 1, "b": 2})
    refused = choosy.talk.view(ROUTE)

    rolled_back = choosy.set({"a": 3, "b": 2})

    assert (step, rolled_back) == (["a1 b2"], ["a3 b1"])
    view = choosy.talk.view(ROUTE)
    for each in (refused, view):
        assert (each.nacks["r"].message, each.nacks["r"].owners) == ("bad", {"b"})
    assert alike(view.partial["r"], choosy.target, "a")
    assert not alike(view.partial["r"], choosy.target, "b")
    assert choosy.set({"a": 3, "b": 2}) == []


def test_the_culprit_among_parts_is_found_and_the_others_arrive(choosy):
    choosy.start({"a": 1, "b": 1, "c": 1})
    choosy.dislikes = {"b2"}

    seen = choosy.set({"a": 2, "b": 2, "c": 2})

    assert seen[0] == "a2 b2 c2"
    assert seen[-1] == "a2 b1 c2"
    assert len(seen) == len(set(seen))  # nothing was sent twice
    assert choosy.talk.view(ROUTE).nacks["r"].owners == {"b"}


def test_the_culprit_is_found_though_all_parts_are_new_to_a_resource_without_any(choosy):
    choosy.start({})
    choosy.dislikes = {"a1"}

    seen = choosy.set({"a": 1, "b": 1})

    assert (seen[0], seen[-1]) == ("a1 b1", "b1")
    assert choosy.talk.view(ROUTE).nacks["r"].owners == {"a"}


def test_what_was_refused_is_forgotten_once_the_part_is_another_one(choosy, model):
    choosy.start({"a": 1, "b": 1})
    choosy.dislikes = {"b2"}
    choosy.set({"a": 2, "b": 2})

    better = choosy.set({"a": 2, "b": 3})

    assert better == ["a2 b3"]
    view = choosy.talk.view(ROUTE)
    assert (view.nacks, view.error, view.partial) == ({}, None, {})
    assert view.acked["r"] == choosy.target.version


def test_parts_that_are_refused_only_together_end_in_rest(choosy):
    choosy.start({"a": 1, "b": 1})
    choosy.dislikes = _Both("a2", "b2")

    seen = choosy.set({"a": 2, "b": 2})

    assert seen == ["a2 b2", "a2 b1"]
    assert choosy.talk.view(ROUTE).nacks["r"].owners == {"b"}


class _Both(set):
    """Disliked only if all of them are there."""

    def __init__(self, *parts):
        super().__init__(parts)

    def __and__(self, other):
        return set(self) if set(self) <= other else set()
