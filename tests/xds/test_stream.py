"""The protocol's rules, one by one, at the level of messages."""

from __future__ import annotations

import pytest
from talk import Talk

from controlplane.xds.messages import MAX_NAMES, ProtocolError
from controlplane.xds.stream import MAX_TYPES
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.wire import set_hash


def test_nothing_is_answered_before_a_snapshot(talk, model):
    silent = talk.ask(CLUSTER)

    assert silent == []
    assert talk.publish(1, (CLUSTER, model.resource("a"))) == [["a"]]


def test_wildcard_of_an_empty_world_is_answered(talk):
    talk.publish(1)

    assert talk.ask(CLUSTER) == [[]]


def test_ack_gets_silence_and_same_state_pushes_nothing(talk, model):
    talk.publish(1, (CLUSTER, model.resource("a")))
    talk.ask(CLUSTER)

    assert talk.ack(CLUSTER) == []
    assert talk.publish(2, (CLUSTER, model.resource("a", revision=2))) == []
    assert dict(talk.view(CLUSTER).acked) == {"a": model.resource("a").version}


def test_only_one_response_of_a_type_is_unanswered_and_the_latest_target_wins(talk, model):
    talk.publish(1, (CLUSTER, model.resource("a")))
    talk.ask(CLUSTER)

    held = [talk.publish(n, (CLUSTER, model.resource("a", str(n)))) for n in range(2, 6)]

    assert held == [[]] * 4
    assert talk.ack(CLUSTER) == [["a"]]
    assert talk.ack(CLUSTER) == []
    assert talk.view(CLUSTER).acked["a"] == model.resource("a", "5").version


def test_nack_is_not_a_request_for_a_resend(talk, model):
    talk.publish(1, (CLUSTER, model.resource("a")))
    talk.ask(CLUSTER)
    talk.ack(CLUSTER)
    talk.publish(2, (CLUSTER, model.resource("a", "2")))

    assert talk.ack(CLUSTER, error="bad") == []
    nack = talk.view(CLUSTER).nacks["a"]
    assert (nack.version, nack.message, nack.at) == (model.resource("a", "2").version, "bad", model.NOW)
    assert talk.view(CLUSTER).acked["a"] == model.resource("a").version
    assert talk.publish(3, (CLUSTER, model.resource("a", "2"))) == []
    assert talk.publish(4, (CLUSTER, model.resource("a", "3"))) == [["a"]]
    talk.ack(CLUSTER)
    assert talk.view(CLUSTER).nacks == {}
    assert talk.view(CLUSTER).error is None


def test_culprit_of_a_refused_batch_is_found_and_the_rest_arrives(talk, model):
    names = "abcdefgh"
    talk.publish(1, (CLUSTER, *(model.resource(n) for n in names)))
    talk.ask(CLUSTER)
    sent = set()
    for _ in range(20):
        response = talk.last[CLUSTER]
        bad = any(b"f=" in r.SerializeToString() for r in response.resources)
        if not talk.ack(CLUSTER, error="bad f" if bad else ""):
            break
        sent.add(response.nonce)

    assert set(talk.view(CLUSTER).nacks) == {"f"}
    assert set(talk.view(CLUSTER).acked) == set(names) - {"f"}
    assert len(sent) < 10


def test_refused_version_is_tried_again_after_another_was_accepted(talk, model):
    talk.publish(1, (ROUTE, model.resource("r")))
    talk.ask(ROUTE, ["r"])
    talk.ack(ROUTE, talk.repeated("r"), error="bad")
    talk.publish(2, (ROUTE, model.resource("r", "2")))
    talk.ack(ROUTE, talk.repeated("r"))

    assert talk.publish(3, (ROUTE, model.resource("r"))) == [["r"]]


def test_unknown_names_are_remembered_and_known_ones_sent_at_once(talk, model):
    talk.publish(1, (ENDPOINT, model.resource("a")))

    first = talk.ask(ENDPOINT, ["a", "b"])
    talk.ack(ENDPOINT, talk.repeated("a", "b"))

    assert first == ([["a"]] if talk.variant == "sotw" else [["a", "-b"]])
    assert talk.publish(2, (ENDPOINT, model.resource("a"), model.resource("b"))) == [["b"]]


def test_change_of_one_resource_sends_that_one_only(talk, model):
    talk.publish(1, (ROUTE, model.resource("r"), model.resource("s")))
    talk.ask(ROUTE, ["r", "s"])
    talk.ack(ROUTE, talk.repeated("r", "s"))

    changed = talk.publish(2, (ROUTE, model.resource("r", "2"), model.resource("s"), model.resource("other")))

    assert changed == [["r"]]


def test_types_are_separate_conversations_in_push_order(talk, model):
    talk.ask(LISTENER)
    talk.ask(CLUSTER)

    responses = talk.publish(1, (LISTENER, model.resource("l")), (CLUSTER, model.resource("a")))

    assert responses == [["a"], ["l"]]
    talk.ack(LISTENER, error="bad")
    assert talk.view(CLUSTER).error is None


def test_unserved_type_is_held_and_listed(talk):
    talk.publish(1)

    assert talk.ask("type.googleapis.com/envoy.service.runtime.v3.Runtime") == []
    assert not talk.stream.view().types[0].served


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"node": b""}, "INVALID_ARGUMENT"),
        ({"node": b"\xff"}, "INVALID_ARGUMENT"),
        ({"type_url": ""}, "INVALID_ARGUMENT"),
        ({"type_url": "nonsense"}, "INVALID_ARGUMENT"),
        ({"type_url": "type.googleapis.com/no such"}, "INVALID_ARGUMENT"),
    ],
)
def test_broken_requests_end_the_stream(talk, model, fields, status):
    message = talk.request(**{"node": model.NODE, "type_url": CLUSTER} | fields)

    with pytest.raises(ProtocolError) as caught:
        talk.stream.receive(message.SerializeToString(), model.NOW)

    assert caught.value.status == status


def test_numbers_of_names_and_types_are_bounded(talk):
    talk.ask(ROUTE)

    with pytest.raises(ProtocolError, match="RESOURCE_EXHAUSTED"):
        talk.ask(ROUTE, [str(n) for n in range(MAX_NAMES + 1)])
    for n in range(MAX_TYPES - 1):
        talk.ask(f"type.googleapis.com/t{n}")
    with pytest.raises(ProtocolError, match="RESOURCE_EXHAUSTED"):
        talk.ask("type.googleapis.com/more")


def test_service_of_one_type_refuses_another(model):
    talk = Talk(model, "sotw", type_url=ROUTE)

    with pytest.raises(ProtocolError, match="is not"):
        talk.ask(CLUSTER)


# -- subscriptions


def test_sotw_wildcard_walk(sotw, model):
    world = (CLUSTER, model.resource("A"), model.resource("B"))
    sotw.publish(1, world)

    everything = sotw.ask(CLUSTER)
    both = sotw.ack(CLUSTER, ["*", "A"])
    only = sotw.ack(CLUSTER, ["A"])
    sotw.ack(CLUSTER, [])

    assert everything == [["A", "B"]]
    assert both == [["A", "B"]]  # newly named: sent again
    assert only == []
    assert (sotw.view(CLUSTER).wildcard, sotw.view(CLUSTER).names) == (False, frozenset())
    assert sotw.publish(2, (CLUSTER, model.resource("A", "2"))) == []


def test_delta_wildcard_walk(delta, model):
    delta.publish(1, (CLUSTER, model.resource("A"), model.resource("B")))

    everything = delta.ask(CLUSTER)
    delta.ack(CLUSTER)
    named = delta.ask(CLUSTER, ["A"])
    delta.ack(CLUSTER)
    delta.ask(CLUSTER, resource_names_unsubscribe=["*"])
    only_a = delta.view(CLUSTER)
    delta.ask(CLUSTER, resource_names_unsubscribe=["A"])

    assert (everything, named) == ([["A", "B"]], [["A"]])
    assert (only_a.wildcard, only_a.names, set(only_a.acked)) == (False, frozenset({"A"}), {"A"})
    assert not delta.view(CLUSTER).wildcard
    assert delta.publish(2, (CLUSTER, model.resource("A", "2"))) == []


@pytest.mark.parametrize(("exists", "answer"), [(True, [["A"]]), (False, [["-A"]])])
def test_delta_name_given_up_under_a_wildcard_is_answered(delta, model, exists, answer):
    delta.publish(1, (CLUSTER, *([model.resource("A")] if exists else [])))
    delta.ask(CLUSTER, ["*", "A"])
    delta.ack(CLUSTER)

    assert delta.ask(CLUSTER, resource_names_unsubscribe=["A"]) == answer


def test_resubscribed_name_is_sent_again(talk, model):
    talk.publish(1, (ROUTE, model.resource("r"), model.resource("s")))
    talk.ask(ROUTE, ["r", "s"])
    if talk.variant == "sotw":
        talk.ack(ROUTE, ["s"])
        assert talk.ack(ROUTE, ["r", "s"]) == [["r"]]
    else:
        talk.ack(ROUTE)
        assert talk.ask(ROUTE, ["r"]) == [["r"]]


def test_sotw_stale_nonce_is_ignored_until_the_newest_is_answered(sotw, model):
    sotw.publish(1, (ROUTE, model.resource("r"), model.resource("s")))
    sotw.ask(ROUTE, ["r"])

    assert sotw.ask(ROUTE, ["r", "s"], nonce="") == []
    assert sotw.view(ROUTE).names == {"r"}
    assert sotw.ack(ROUTE, ["r", "s"]) == [["s"]]


def test_delta_subscription_counts_whatever_the_nonce(delta, model):
    delta.publish(1, (ROUTE, model.resource("r"), model.resource("s")))
    delta.ask(ROUTE, ["r"])

    first = delta.last[ROUTE].nonce
    assert delta.ask(ROUTE, ["s"], nonce="stale") == [["s"]]
    assert delta.ask(ROUTE, nonce=first) == delta.ack(ROUTE) == []
    assert set(delta.view(ROUTE).acked) == {"r", "s"}


def test_nonce_of_an_earlier_stream_does_not_silence_the_first_request(talk, model):
    talk.publish(1, (ROUTE, model.resource("r")))

    assert talk.ask(ROUTE, ["r"], nonce="77") == [["r"]]


def test_sotw_removal_is_by_omission_of_full_state_types_only(sotw, model):
    sotw.publish(1, (CLUSTER, model.resource("a"), model.resource("b")), (ROUTE, model.resource("r")))
    sotw.ask(CLUSTER)
    sotw.ack(CLUSTER)
    sotw.ask(ROUTE, ["r"])
    sotw.ack(ROUTE, ["r"])

    assert sotw.publish(2, (CLUSTER, model.resource("b")), (ROUTE,)) == [["b"]]


def test_delta_removal_is_said_once_and_a_new_one_is_sent(delta, model):
    delta.publish(1, (CLUSTER, model.resource("c")))
    delta.ask(CLUSTER, ["c"])
    delta.ack(CLUSTER)

    assert delta.publish(2, (CLUSTER,)) == [["-c"]]
    assert delta.ack(CLUSTER) == []
    assert delta.publish(3, (CLUSTER, model.resource("c"))) == [["c"]]


# -- reconnect


def test_sotw_wildcard_client_with_our_version_gets_silence(sotw, model):
    target = model.snapshot(5, (CLUSTER, model.resource("a"), model.resource("b")))
    sotw.stream.publish(target)

    silent = sotw.ask(CLUSTER, version_info=f"3.{set_hash(target.of(CLUSTER))}")

    assert silent == []
    assert set(sotw.view(CLUSTER).acked) == {"a", "b"}
    assert sotw.publish(6, (CLUSTER, model.resource("a", "2"), model.resource("b"))) == [["a", "b"]]


def test_delta_client_gets_what_changed_and_loses_what_vanished(delta, model):
    current, outdated = model.resource("a"), model.resource("b", "2")
    delta.publish(5, (CLUSTER, current, outdated))
    versions = {"a": str(current.version), "b": "1.0123", "c": "1.4567"}

    changed = delta.ask(CLUSTER, initial_resource_versions=versions)

    assert changed == [["b"]]
    assert delta.ack(CLUSTER) == [["-c"]]


@pytest.mark.parametrize("variant", ["sotw", "delta"])
def test_client_that_is_ahead_is_never_served_older_state(model, variant):
    talk = Talk(model, variant)
    talk.publish(5, (ROUTE, model.resource("r", "old", revision=5)))
    new = model.resource("r", "new", revision=7)
    claim = (
        {"version_info": "7.abc"}
        if variant == "sotw"
        else {"initial_resource_versions": {"r": str(new.version)}}
    )

    assert talk.ask(ROUTE, ["r"], **claim) == []
    assert talk.stream.behind
    assert talk.publish(6, (ROUTE, model.resource("r", "old", revision=5))) == []
    caught_up = talk.publish(7, (ROUTE, new))
    assert not talk.stream.behind
    assert caught_up == ([["r"]] if variant == "sotw" else [])


# -- order


def test_endpoints_are_sent_again_after_their_cluster_changed(talk, model):
    def world(revision, content):
        endpoints = model.resource("a", follows=(CLUSTER, "a"))
        return revision, (CLUSTER, model.resource("a", content)), (ENDPOINT, endpoints)

    talk.publish(*world(1, "1"))
    talk.ask(CLUSTER)
    talk.ask(ENDPOINT, ["a"])
    talk.ack(ENDPOINT, talk.repeated("a"))
    talk.ack(CLUSTER)

    assert talk.publish(*world(2, "2")) == [["a"], ["a"]]


def routed(model, revision, cluster, *, hollow=False, clusters=None):
    names = clusters or [cluster]
    needs = [(CLUSTER, cluster), (ENDPOINT, cluster)]
    return (
        revision,
        (CLUSTER, *(model.resource(n) for n in names)),
        (ENDPOINT, *(model.resource(n, f"{n}{hollow}", follows=(CLUSTER, n), hollow=hollow) for n in names)),
        (ROUTE, model.resource("r", cluster, needs=needs)),
    )


def test_route_waits_for_cluster_and_endpoints_and_the_old_cluster_for_the_route(talk, model):
    full = talk.variant == "sotw"
    talk.publish(*routed(model, 1, "a"))
    talk.ask(CLUSTER)
    talk.ask(ENDPOINT, ["a"])
    talk.ack(ENDPOINT, ["a"] if full else ())
    talk.ack(CLUSTER)
    talk.ask(ROUTE, ["r"])
    talk.ack(ROUTE, ["r"] if full else ())

    added = talk.publish(*routed(model, 2, "b"))
    endpoints = talk.ask(ENDPOINT, ["a", "b"] if full else ["b"], nonce=talk.last[ENDPOINT].nonce)
    after_cluster = talk.ack(CLUSTER)
    gated = talk.view(ROUTE).gated
    route = talk.ack(ENDPOINT, ["a", "b"] if full else ())
    removed = talk.ack(ROUTE, ["r"] if full else ())

    assert added == ([["a", "b"]] if full else [["b"]])
    assert endpoints == [["b"]]
    assert after_cluster == []
    assert gated == {"r": (ENDPOINT, "b")}
    assert route == [["r"]]
    assert removed == ([["b"]] if full else [["-a"]])


def test_first_route_waits_for_an_answer_only_and_is_sent_though_hollow(talk, model):
    talk.ask(CLUSTER)
    talk.ask(ENDPOINT, ["a"])
    talk.ask(ROUTE, ["r"])

    assert talk.publish(*routed(model, 1, "a", hollow=True)) == [["a"], ["a"]]
    talk.ack(ENDPOINT, talk.repeated("a"))
    assert talk.ack(CLUSTER) == [["r"]]


def test_later_route_stays_on_the_old_cluster_while_the_new_one_is_hollow(talk, model):
    names = ["a", "b"]
    repeat = names if talk.variant == "sotw" else ()
    talk.ask(CLUSTER)
    talk.ask(ENDPOINT, names)
    talk.publish(*routed(model, 1, "a", clusters=names))
    talk.ack(ENDPOINT, repeat)
    talk.ack(CLUSTER)
    talk.ask(ROUTE, ["r"])
    talk.ack(ROUTE, ["r"] if repeat else ())

    (url, *clusters), (_, *_), (_, route) = routed(model, 2, "b", clusters=names)[1:]
    empty = model.resource("b", "none", follows=(CLUSTER, "b"), hollow=True)
    full = model.resource("a", "aFalse", follows=(CLUSTER, "a"))
    answers = talk.publish(2, (url, *clusters), (ENDPOINT, full, empty), (ROUTE, route))
    waiting = talk.ack(ENDPOINT, repeat)
    healed = talk.publish(*routed(model, 3, "b", clusters=names))

    assert answers == [["b"]]
    assert waiting == []
    assert healed == [["b"]]
    assert talk.ack(ENDPOINT, repeat) == [["r"]]


def test_client_that_asks_by_name_is_never_gated(sotw, model):
    sotw.publish(*routed(model, 1, "a"))

    assert sotw.ask(ROUTE, ["r"]) == [["r"]]
    sotw.ask(CLUSTER, ["a"])
    sotw.ack(ROUTE, ["r"])
    assert sotw.publish(*routed(model, 2, "b")) == [["r"]]  # the cluster stays: the old route is in use
    assert sotw.view(CLUSTER).sent.keys() == {"a"}


def test_returning_sotw_client_keeps_a_cluster_until_it_has_a_route_that_left_it(sotw, model):
    """It names its routes and not what is in them: any of its clusters may be in use."""
    before = model.snapshot(*routed(model, 5, "a"))
    sotw.stream.publish(before)
    sotw.ask(CLUSTER, version_info=f"5.{set_hash(before.of(CLUSTER))}")
    swapped = sotw.publish(*routed(model, 6, "b"))
    version = f"5.{set_hash(before.of(ROUTE))}"
    sotw.ask(ROUTE, ["r"], version_info=version)
    endpoints = sotw.ask(ENDPOINT, ["a", "b"], version_info=f"5.{set_hash(before.of(ENDPOINT))}")

    sotw.ack(ENDPOINT, ["a", "b"])
    route = sotw.ack(CLUSTER)
    left = sotw.ack(ROUTE, ["r"])

    assert (swapped, endpoints, route, left) == ([["a", "b"]], [["b"]], [["r"]], [["b"]])


def test_returning_sotw_client_whose_route_is_gone_loses_what_was_under_it(sotw, model):
    before = model.snapshot(*routed(model, 5, "a"))
    sotw.stream.publish(before)
    sotw.ask(CLUSTER, version_info=f"5.{set_hash(before.of(CLUSTER))}")

    clusters = sotw.publish(6, (CLUSTER, model.resource("b")), (ROUTE,))
    sotw.ask(ROUTE, ["r"], version_info=f"5.{set_hash(before.of(ROUTE))}")

    assert clusters == [["a", "b"]]  # a route on it may be in a request that was not read yet
    assert sotw.ack(CLUSTER) == [["b"]]


def test_a_client_that_has_very_many_long_names_kept_is_ended(delta):
    def ask_for_all():
        for kind in range(MAX_TYPES):
            url = f"type.googleapis.com/x.Kind{kind}"
            for part in range(4):
                delta.ask(url, [f"{part}-{n}-{'x' * 900}" for n in range(2500)])

    with pytest.raises(ProtocolError, match=r"names and versions of \d+ MiB on one stream, at most 32"):
        ask_for_all()


def test_names_that_are_given_up_do_not_count(delta):
    for turn in range(60):
        names = [f"{turn}-{n}-{'x' * 900}" for n in range(1000)]
        delta.ask(ROUTE, names)
        delta.ask(ROUTE, [], resource_names_unsubscribe=names)

    assert len(delta.stream.view().of(ROUTE).names) == 0
