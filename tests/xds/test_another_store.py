"""What a client has from another store than ours: recognized by its versions, and never taken for ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from talk import Talk

from controlplane.xds.type_urls import CLUSTER, ROUTE
from controlplane.xds.wire import set_hash


@pytest.mark.parametrize(
    ("claim", "strange", "sent"),
    [
        ("57.{other}", ["r"], [["r"]]),
        ("57.{same}", [], [["r"]]),  # once more, so that it is known by our version when it comes back
        ("100.{same}", [], []),
        ("100.{other}", [], [["r"]]),
        ("0.{other}", [], [["r"]]),
        ("another-control-planes", [], [["r"]]),
    ],
)
def test_a_delta_client_tells_what_it_has_of_another_store(delta, model, claim, strange, sent):
    ours = model.resource("r", "ours", revision=100)
    claim = claim.format(same=ours.version.hash, other="0123456789abcdef")
    delta.stream.publish(replace(model.snapshot(100, (ROUTE, ours)), began=100))

    message = delta.request(type_url=ROUTE, node=delta.node, initial_resource_versions={"r": claim})
    delta.stream.receive(message.SerializeToString(), model.NOW)

    assert [name for _, name in delta.stream.strange] == strange
    assert not delta.stream.fresh
    assert delta.heard() == sent
    if sent:
        delta.ack(ROUTE)
    assert delta.stream.view().strange == ()
    assert {str(version) for version in delta.view(ROUTE).acked.values()} == {f"100.{ours.version.hash}"}


def test_what_is_in_no_target_is_strange_and_what_becomes_equal_is_not(delta, model):
    claims = {"r": str(model.resource("r", "theirs", revision=57).version), "gone": "57.0123456789abcdef"}
    ours, theirs = (model.resource("r", content, revision=100) for content in ("ours", "theirs"))
    delta.stream.publish(replace(model.snapshot(100, (ROUTE, ours)), began=100))
    message = delta.request(type_url=ROUTE, node=delta.node, initial_resource_versions=claims)
    delta.stream.receive(message.SerializeToString(), model.NOW)

    seen = [delta.stream.strange]
    for routes in ([theirs], [theirs, model.resource("gone", revision=100)]):
        delta.stream.publish(replace(model.snapshot(100, (ROUTE, *routes)), began=100))
        seen.append(delta.stream.strange)

    assert seen == [((ROUTE, "gone"), (ROUTE, "r")), ((ROUTE, "gone"),), ((ROUTE, "gone"),)]


@pytest.mark.parametrize(
    ("url", "names", "claim", "strange", "sent"),
    [
        (CLUSTER, [], "57.{other}", ["*"], [["a", "b"]]),
        (CLUSTER, [], "57.{same}", [], [["a", "b"]]),
        (CLUSTER, [], "100.{same}", [], []),
        (CLUSTER, [], "100.{other}", [], [["a", "b"]]),
        (CLUSTER, [], "0.{other}", [], [["a", "b"]]),
        (CLUSTER, [], "another-control-planes", [], [["a", "b"]]),
        (CLUSTER, ["a", "b"], "57.{other}", ["*"], [["a", "b"]]),
        (CLUSTER, ["a", "gone"], "57.{other}", ["*"], [["a"]]),
        (CLUSTER, ["a", "b"], "57.{same}", [], [["a", "b"]]),
        (CLUSTER, ["a", "b"], "100.{other}", [], [["a", "b"]]),
        (ROUTE, ["r"], "57.{other}", ["r"], [["r"]]),
        (ROUTE, ["r"], "57.{same}", [], [["r"]]),
        (ROUTE, ["r", "s"], "57.{same}", ["r"], [["r"]]),
        (ROUTE, ["r"], "100.{other}", [], [["r"]]),
    ],
)
def test_a_client_of_whole_sets_tells_what_it_has_of_another_store(model, url, names, claim, strange, sent):
    talk = Talk(model, "sotw")
    clusters = [model.resource(name, revision=100) for name in "ab"]
    route = model.resource("r", "ours", revision=100, needs={(CLUSTER, "a")})
    talk.stream.publish(replace(model.snapshot(100, (CLUSTER, *clusters), (ROUTE, route)), began=100))
    same = set_hash({each.name: each for each in (clusters if url == CLUSTER else [route])})
    message = talk.request(
        type_url=url, node=talk.node, resource_names=names,
        version_info=claim.format(same=same, other="0123456789abcdef"),
    )  # fmt: skip
    talk.stream.receive(message.SerializeToString(), model.NOW)

    assert [name for _, name in talk.stream.strange] == strange
    talk.stream.hear_out()
    assert talk.heard() == sent
    if sent:
        assert talk.last[url].version_info.startswith("100.")
        talk.ack(url, names)
    assert talk.stream.view().strange == ()


def test_a_client_that_brings_nothing_is_fresh_until_it_was_sent_something(talk, model):
    talk.stream.publish(replace(model.snapshot(100, (CLUSTER, model.resource("a"))), began=100))
    assert talk.stream.fresh
    talk.ask(CLUSTER)
    assert not talk.stream.fresh
    assert talk.stream.strange == ()


def test_what_is_newer_than_the_store_is_strange_too_and_the_client_is_ahead(delta, model):
    delta.stream.publish(replace(model.snapshot(100, (ROUTE, model.resource("r"))), began=90))

    assert delta.ask(ROUTE, initial_resource_versions={"r": "101.0123456789abcdef"}) == []

    assert delta.stream.strange == ((ROUTE, "r"),)
    assert (delta.stream.behind, delta.stream.ahead) == (True, 101)


def test_who_is_trusted_is_looked_through_again_only_for_what_it_tells_anew(delta, model):
    routes = [model.resource(name, "ours", revision=100) for name in "rs"]
    clusters = model.resource("a", "ours", revision=100)
    delta.stream.publish(replace(model.snapshot(100, (ROUTE, *routes), (CLUSTER, clusters)), began=100))
    claims = dict.fromkeys("rs", "57.0123456789abcdef")
    message = delta.request(type_url=ROUTE, node=delta.node, initial_resource_versions=claims)
    delta.stream.receive(message.SerializeToString(), model.NOW)
    told = [delta.stream.strange]

    delta.stream.trust()
    told.append(delta.stream.strange)
    heard = delta.heard()
    message = delta.request(type_url=CLUSTER, initial_resource_versions={"a": "57.0123456789abcdef"})
    delta.stream.receive(message.SerializeToString(), model.NOW)
    told.append(delta.stream.strange)

    assert heard == [["r", "s"]]
    assert told == [((ROUTE, "r"), (ROUTE, "s")), (), ((CLUSTER, "a"), (ROUTE, "r"), (ROUTE, "s"))]


def _claim(talk, version):
    return (
        {"version_info": version} if talk.variant == "sotw" else {"initial_resource_versions": {"a": version}}
    )


@pytest.mark.parametrize("url", [CLUSTER, ROUTE])
def test_a_revision_that_no_clock_could_have_made_is_not_waited_for(talk, model, url):
    now = int(model.NOW.timestamp() * 1000)
    talk.publish(now - 1000, (url, model.resource("a", "ours")))
    version = f"{now + 2 * 86_400_000}.0123456789abcdef"

    served = talk.ask(url, ["a"], **_claim(talk, version))

    assert served == [["a"]]
    assert (talk.stream.behind, talk.stream.ahead, talk.stream.strange) == (False, 0, ())


def test_a_revision_of_a_clock_that_is_a_little_ahead_is_waited_for(talk, model):
    now = int(model.NOW.timestamp() * 1000)
    talk.publish(now - 1000, (ROUTE, model.resource("a", "ours")))
    version = f"{now + 3_600_000}.0123456789abcdef"

    assert talk.ask(ROUTE, ["a"], **_claim(talk, version)) == []
    assert talk.stream.behind


def test_a_server_that_counts_beyond_every_clock_is_told_by_its_own_numbers(talk, model):
    talk.publish(10**17, (ROUTE, model.resource("a", "ours")))
    version = f"{10**17 + 5}.0123456789abcdef"

    assert talk.ask(ROUTE, ["a"], **_claim(talk, version)) == []
    assert talk.stream.behind
