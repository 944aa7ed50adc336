"""What changed once is not kept waiting by what changes all the time."""

from __future__ import annotations

import pytest

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, ROUTE


@pytest.mark.parametrize("url", [CLUSTER, ENDPOINT, ROUTE])
def test_what_changes_all_the_time_starves_nothing(delta, model, url):
    """The client is slow: it answers once for each two changes."""
    names = ["a", "b"]
    delta.publish(1, (url, *map(model.resource, names)))
    delta.ask(url, [] if url == CLUSTER else names)
    delta.ack(url)
    asked = []
    contents = dict.fromkeys(names, "1")

    def change(name, number):
        contents[name] = str(number)
        sent = delta.publish(number, (url, *(model.resource(n, c) for n, c in contents.items())))
        asked.extend((response, delta.last[url].nonce) for response in sent)
        return sent

    for number in range(2, 7):
        change("a", number)
    sent = change("b", 7)
    for number in range(8, 40, 2):
        sent += change("a", number)
        _, nonce = asked.pop(0)
        answer = delta.ask(url, nonce=nonce)
        asked.extend((response, delta.last[url].nonce) for response in answer)
        sent += answer + change("a", number + 1)
        if ["b"] in sent:
            break

    assert ["b"] in sent[:3]


def test_a_rollback_of_a_route_goes_first_once(delta, model):
    names = [f"r{n}" for n in range(9)]
    delta.publish(1, (ROUTE, *map(model.resource, names)))
    delta.ask(ROUTE, names)
    delta.ack(ROUTE)
    full = dict.fromkeys(names[:4], "2")
    revision = 1

    def publish(**contents):
        nonlocal revision
        revision += 1
        full.update(contents)
        return delta.publish(revision, (ROUTE, *(model.resource(n, full.get(n, "1")) for n in names)))

    for name in names[:4]:
        publish(**{name: "3"})
    oldest = int(delta.last[ROUTE].nonce) - 3
    publish(r5="2")
    publish(r6="2")
    publish(r0="1")

    first = delta.ask(ROUTE, nonce=str(oldest))
    publish(r0="4")
    second = delta.ask(ROUTE, nonce=str(oldest + 1))

    assert first == [["r0"]]
    assert second in ([["r5"]], [["r6"]])


@pytest.mark.parametrize(("count", "responses"), [(4, 4), (5, 1), (200, 1)])
def test_more_than_a_few_changes_take_one_round_trip(delta, model, count, responses):
    names = [f"e{n}" for n in range(count + 1)]
    delta.publish(1, (ENDPOINT, *map(model.resource, names)))
    delta.ask(ENDPOINT, names)
    delta.ack(ENDPOINT)
    delta.publish(2, (ENDPOINT, model.resource("e0", "2"), *map(model.resource, names[1:])))
    delta.publish(3, (ENDPOINT, *(model.resource(name, "2") for name in names)))

    sent = []
    while new := delta.ack(ENDPOINT):
        sent += new

    assert len(sent) == responses
    assert sorted(name for response in sent for name in response) == sorted(names[1:])


def test_the_culprit_of_many_changes_is_found_and_the_rest_arrives(delta, model):
    names = [f"c{n}" for n in range(200)]
    delta.publish(1, (CLUSTER, *map(model.resource, names)))
    delta.ask(CLUSTER)
    delta.ack(CLUSTER)

    listed = delta.publish(2, (CLUSTER, *(model.resource(name, "2") for name in names)))
    for _ in range(20):
        bad = "c7" in listed[-1]
        new = delta.ack(CLUSTER, error="Error adding/updating cluster(s) c7: bad" if bad else "")
        if not new:
            break
        listed += new

    assert list(map(len, listed)) == [200, 199, 1]
    assert set(delta.view(CLUSTER).nacks) == {"c7"}
