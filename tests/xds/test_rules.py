"""Rules of the protocol that are easily forgotten; `docs/xds.md` says which test shows which."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.xds.messages import MAX_METADATA, MAX_NODE, ProtocolError, parse_node
from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.wire import set_hash


def test_nonces_are_unique_on_a_stream(talk, model):
    talk.publish(1, (CLUSTER, model.resource("a")), (ROUTE, model.resource("r")))
    talk.ask(CLUSTER)
    talk.ask(ROUTE, ["r"])
    nonces = [talk.last[CLUSTER].nonce, talk.last[ROUTE].nonce]
    for revision in range(2, 6):
        talk.publish(revision, (CLUSTER, model.resource("a", str(revision))), (ROUTE, model.resource("r")))
        talk.ack(CLUSTER)
        nonces.append(talk.last[CLUSTER].nonce)

    assert all(nonces)
    assert len(set(nonces)) >= 5


def test_name_that_is_asked_for_twice_is_sent_once(talk, model):
    talk.publish(1, (ROUTE, model.resource("r")))

    assert talk.ask(ROUTE, ["r", "r"]) == [["r"]]


def test_error_detail_alone_makes_a_refusal(talk, model):
    talk.publish(1, (ROUTE, model.resource("r")))
    talk.ask(ROUTE, ["r"])
    message = talk.request(type_url=ROUTE, response_nonce=talk.last[ROUTE].nonce)
    if talk.variant == "sotw":
        message.resource_names.append("r")
        message.version_info = talk.last[ROUTE].version_info  # as if it were accepted
    message.error_detail.SetInParent()

    received = talk.stream.receive(message.SerializeToString(), model.NOW)

    assert received.nack is not None
    assert not received.acked
    assert set(talk.view(ROUTE).nacks) == {"r"}


def test_answer_without_error_detail_is_an_ack_whatever_its_version(sotw, model):
    sotw.publish(1, (ROUTE, model.resource("r")))
    sotw.ask(ROUTE, ["r"])

    sotw.ack(ROUTE, ["r"], version_info="older")

    assert set(sotw.view(ROUTE).acked) == {"r"}


@pytest.mark.parametrize("spelling", [[], ["*"]])
def test_both_spellings_of_everything(talk, model, spelling):
    talk.publish(1, (CLUSTER, model.resource("a"), model.resource("b")))

    assert talk.ask(CLUSTER, spelling) == [["a", "b"]]
    talk.ack(CLUSTER, talk.repeated(*spelling))
    assert talk.publish(2, (CLUSTER, model.resource("a"), model.resource("b"), model.resource("c"))) == (
        [["a", "b", "c"]] if talk.variant == "sotw" else [["c"]]
    )


def test_superfluous_unsubscribe_is_ignored(delta, model):
    delta.publish(1, (ROUTE, model.resource("r")))
    delta.ask(ROUTE, ["r"])
    delta.ack(ROUTE)

    assert delta.ask(ROUTE, resource_names_unsubscribe=["absent", "s"]) == []
    assert delta.publish(2, (ROUTE, model.resource("r", "2"))) == [["r"]]


def test_list_that_grows_without_waiting_converges(talk, model):
    talk.publish(1, (ENDPOINT, *(model.resource(n) for n in "abcd")))
    talk.ask(ENDPOINT, ["a"])
    for count in (2, 3, 4):
        talk.ask(ENDPOINT, list("abcd"[:count]) if talk.variant == "sotw" else ["abcd"[count - 1]])

    for _ in range(6):  # as a client does: each answer repeats the newest list
        talk.ack(ENDPOINT, talk.repeated(*"abcd"))

    assert set(talk.view(ENDPOINT).acked) == set("abcd")


def test_empty_list_after_names_means_nothing(sotw, model):
    sotw.publish(1, (ENDPOINT, model.resource("a")))
    sotw.ask(ENDPOINT, ["a"])

    assert sotw.ack(ENDPOINT, []) == []
    assert not sotw.view(ENDPOINT).wildcard
    assert sotw.publish(2, (ENDPOINT, model.resource("a", "2"), model.resource("b"))) == []


def test_absence_is_said_once(delta, model):
    delta.publish(1, (ENDPOINT, model.resource("a")))

    assert delta.ask(ENDPOINT, ["ghost"]) == [["-ghost"]]
    assert delta.ack(ENDPOINT) == []
    assert delta.publish(2, (ENDPOINT, model.resource("a", "2"))) == []
    assert delta.publish(3, (ENDPOINT, model.resource("ghost"))) == [
        ["ghost"]
    ]  # and the name is still wanted


def test_reconnect_by_name_is_answered_though_nothing_changed(sotw, model):
    target = model.snapshot(1, (ROUTE, model.resource("r")))
    sotw.stream.publish(target)

    assert sotw.ask(ROUTE, ["r"], version_info=f"1.{set_hash(target.of(ROUTE))}") == [["r"]]


def test_reconnect_with_names_that_are_gone_gets_those_that_exist(talk, model):
    talk.publish(1, (ENDPOINT, model.resource("a")))

    assert talk.ask(ENDPOINT, ["a", "deleted"]) == [["a"] if talk.variant == "sotw" else ["a", "-deleted"]]


@pytest.mark.parametrize(
    "name", ["xdstp://authority/envoy.config.route.v3/a?x=1&y=2", "a/*", "ä", "a b", "*x"]
)
def test_names_are_opaque(talk, model, name):
    talk.publish(1, (ROUTE, model.resource(name.replace("=", "-")), model.resource("other")))

    assert talk.ask(ROUTE, [name.replace("=", "-")]) == [[name.replace("=", "-")]]


def test_first_response_has_everything_and_later_ones_one_resource_each(delta, model):
    first = [model.resource(n) for n in "abc"]
    delta.publish(1, (CLUSTER, *first))

    assert delta.ask(CLUSTER) == [["a", "b", "c"]]
    assert delta.ack(CLUSTER) == []
    assert delta.publish(2, (CLUSTER, *(model.resource(n, "2") for n in "abc"))) == [["a"]]
    assert [delta.ack(CLUSTER), delta.ack(CLUSTER), delta.ack(CLUSTER)] == [[["b"]], [["c"]], []]


def test_view_has_times_of_the_last_response_and_its_answer(talk, model):
    talk.publish(1, (LISTENER, model.resource("l")))
    talk.ask(LISTENER)
    waiting = talk.view(LISTENER)
    talk.model = type(model)(**vars(model) | {"NOW": model.NOW + timedelta(seconds=3)})
    talk.ack(LISTENER)
    answered = talk.view(LISTENER)

    assert (waiting.sent_at, waiting.acked_at, waiting.waiting_since) == (model.NOW, None, model.NOW)
    assert (answered.sent_at, answered.acked_at) == (model.NOW, model.NOW + timedelta(seconds=3))
    assert answered.waiting_since is None


@pytest.mark.parametrize(
    ("kind", "names"),
    [("ack", {"acked": True, "first": False}), ("spontaneous", {"acked": False, "first": False})],
)
def test_what_a_request_was(delta, model, kind, names):
    delta.publish(1, (CLUSTER, model.resource("a")))
    delta.ask(CLUSTER)
    nonce = delta.last[CLUSTER].nonce if kind == "ack" else ""

    message = delta.request(type_url=CLUSTER, response_nonce=nonce)
    received = delta.stream.receive(message.SerializeToString(), model.NOW)

    assert {key: getattr(received, key) for key in names} == names


@pytest.mark.parametrize(
    ("size", "field", "refused"),
    [
        (MAX_METADATA + 1, 3, "node.metadata"),
        (MAX_NODE, 9, "node: "),
        (61 << 10, 9, None),  # what an Envoy says of its extensions
        (MAX_METADATA - 100, 3, None),
    ],
)
def test_node_is_bounded(size, field, refused):
    def of(number, value):
        length = len(value)
        return bytes([number << 3 | 2, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + value

    metadata = of(1, of(1, b"key") + of(2, of(3, bytes(size))))
    data = b"\x0a\x02id" + (of(3, metadata) if field == 3 else of(9, bytes(size)))

    if refused is None:
        assert parse_node(data).id == "id"
        return
    with pytest.raises(ProtocolError, match=refused) as caught:
        parse_node(data)
    assert caught.value.status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("url", [ENDPOINT, ROUTE])
def test_an_empty_list_is_everything_only_of_types_that_are_asked_for_so(talk, model, url):
    """Of clusters, listeners and scopes; a client that has nothing to ask for names nothing of the others."""
    talk.publish(1, (url, model.resource("a"), model.resource("b")))

    silent = talk.ask(url)

    assert silent == []
    assert not talk.view(url).wildcard
    assert talk.ask(url, ["a"]) == [["a"]]


@pytest.mark.parametrize("url", [ENDPOINT, ROUTE])
def test_a_star_is_everything_of_any_type(talk, model, url):
    talk.publish(1, (url, model.resource("a"), model.resource("b")))

    assert talk.ask(url, ["*"]) == [["a", "b"]]


def test_a_returning_client_catches_up_in_one_response(delta, model):
    """One resource each would take a round trip each: a thousand of them, minutes."""
    delta.publish(5, (CLUSTER, *(model.resource(n, "2") for n in "abcde")))
    versions = {n: str(model.resource(n, "2" if n == "e" else "1").version) for n in "abcdef"}

    changed = delta.ask(CLUSTER, initial_resource_versions=versions)

    assert changed == [["a", "b", "c", "d"]]
    assert delta.ack(CLUSTER) == [["-f"]]
    assert delta.ack(CLUSTER) == []


def test_culprit_among_what_a_returning_client_lacks_is_found(delta, model):
    delta.publish(5, (CLUSTER, *(model.resource(n, "2") for n in "abcd")))
    delta.ask(CLUSTER, initial_resource_versions={n: str(model.resource(n).version) for n in "abcd"})

    for _ in range(10):
        response = delta.last.pop(CLUSTER, None)
        if response is None:
            break
        bad = any(r.name == "c" for r in response.resources)
        delta.ask(CLUSTER, nonce=response.nonce, error="bad c" if bad else "")

    assert set(delta.view(CLUSTER).nacks) == {"c"}
    assert {n for n, v in delta.view(CLUSTER).acked.items() if v == model.resource(n, "2").version} == set(
        "abd"
    )


def removals(talk, model):
    """A client that has ``a`` and ``b``, and refuses to lose ``b``."""
    talk.publish(1, (CLUSTER, model.resource("a"), model.resource("b")))
    talk.ask(CLUSTER)
    talk.ack(CLUSTER)
    removed = talk.publish(2, (CLUSTER, model.resource("a")))
    refused = talk.ack(CLUSTER, error="in use")
    return removed, refused


def test_a_refused_removal_is_kept_and_is_no_loop(talk, model):
    removed, refused = removals(talk, model)

    assert removed == ([["a"]] if talk.variant == "sotw" else [["-b"]])
    assert refused == []
    assert talk.view(CLUSTER).nacks["b"].message == "in use"
    assert talk.publish(3, (CLUSTER, model.resource("a"))) == []  # nothing differs


def test_a_refused_removal_is_tried_again_when_the_target_changes(talk, model):
    removals(talk, model)
    full = talk.variant == "sotw"

    changed = talk.publish(3, (CLUSTER, model.resource("a", "3")))
    again = talk.ack(CLUSTER)
    talk.ack(CLUSTER)

    assert changed == [["a"]]
    assert again == ([] if full else [["-b"]])  # in the same response, or after it
    view = talk.view(CLUSTER)
    assert (set(view.acked), view.nacks, view.error) == ({"a"}, {}, None)


def test_what_came_back_is_not_taken_away_though_its_removal_was_refused(talk, model):
    removals(talk, model)

    back = talk.publish(3, (CLUSTER, model.resource("a"), model.resource("b")))

    assert back == []
    assert talk.view(CLUSTER).nacks == {}
    assert talk.view(CLUSTER).error is None


@pytest.mark.parametrize("brought", ["5.abc", "1700000000.123", "another server's"])
def test_a_snapshot_without_a_revision_is_behind_nobody(talk, model, brought):
    """As an embedded server has them: its versions are hashes, without an order."""
    talk.publish(0, (ROUTE, model.resource("r", revision=0)))
    sotw = talk.variant == "sotw"
    claim = {"version_info": brought} if sotw else {"initial_resource_versions": {"r": brought}}

    assert talk.ask(ROUTE, ["r"], **claim) == [["r"]]
    assert not talk.stream.behind
    assert talk.stream.strange == ()
