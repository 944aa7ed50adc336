"""What the target has no longer stays while something that the client may have needs it."""

from __future__ import annotations

import sys

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE


def world(model, revision, routes, *, clusters=None, content="1"):
    """``routes`` are names, each with the cluster that it names."""
    names = sorted(set(routes.values())) if clusters is None else clusters
    return (
        revision,
        (CLUSTER, *(model.resource(name) for name in names)),
        (ENDPOINT, *(model.resource(name, follows=(CLUSTER, name)) for name in names)),
        (
            ROUTE,
            *(
                model.resource(route, f"{content}{cluster}", needs=[(CLUSTER, cluster), (ENDPOINT, cluster)])
                for route, cluster in routes.items()
            ),
        ),
    )


class Model:
    """A delta client that answers at once, as Envoy: in the order of what it was sent."""

    def __init__(self, talk):
        self.talk, self.removed, self.refuse = talk, [], set()
        for url in (CLUSTER, ENDPOINT):
            talk.ask(url)

    def work(self):
        """Answer all that was sent, and what is sent to that."""
        while True:
            sent = []
            while (data := self.talk.stream.next_response(self.talk.model.NOW)) is not None:
                sent.append(self.talk.response.FromString(data))
            if not sent:
                return
            for message in sent:
                self.answer(message)

    def answer(self, message):
        names, gone = [r.name for r in message.resources], list(message.removed_resources)
        self.removed += [(message.type_url, name) for name in gone]
        if message.type_url == CLUSTER:
            self.say(ENDPOINT, resource_names_subscribe=names, resource_names_unsubscribe=gone)
        bad = [r.name for r in message.resources if r.resource.value in self.refuse]
        answer = self.talk.request(type_url=message.type_url, response_nonce=message.nonce)
        if bad:
            answer.error_detail.message = f"{bad} are bad".encode()
        self.talk.stream.receive(answer.SerializeToString(), self.talk.model.NOW)

    def say(self, url, **fields):
        message = self.talk.request(type_url=url, **fields)
        self.talk.stream.receive(message.SerializeToString(), self.talk.model.NOW)

    def target(self, *world):
        self.talk.stream.publish(self.talk.model.snapshot(*world))
        self.work()

    def has(self, url):
        return set(self.talk.view(url).acked)


def routed(delta, model, routes):
    client = Model(delta)
    client.target(*world(model, 1, routes))
    client.say(ROUTE, resource_names_subscribe=list(routes))
    client.work()
    assert client.has(ROUTE) == set(routes)
    return client


def calls(do):
    """Count what is called meanwhile: as good as the time, and the same everywhere."""
    count = 0

    def note(_frame, event, _arg):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(before)
    return count


def test_a_swap_of_all_clusters_costs_as_much_as_there_are(model):
    from talk import Talk

    def swap(count):
        client = routed(Talk(model, "delta"), model, {f"r{n}": f"old{n}" for n in range(count)})
        target = model.snapshot(*world(model, 2, {f"r{n}": f"new{n}" for n in range(count)}))
        client.talk.stream.publish(target)
        spent = calls(client.work)
        assert client.has(CLUSTER) == client.has(ENDPOINT) == {f"new{n}" for n in range(count)}
        return spent

    assert swap(200) < 2.5 * swap(100)  # n² is 4


def test_what_waits_for_refused_routes_costs_nothing(model):
    """It is not looked at again for each change of something else."""
    from talk import Talk

    def change(count):
        client = routed(Talk(model, "delta"), model, {f"r{n}": f"old{n}" for n in range(count)})
        new = {f"r{n}": f"new{n}" for n in range(count)}
        client.refuse = {model.resource(route, f"1{new[route]}").body for route in list(new)[1:]}
        client.target(*world(model, 2, new))
        assert client.has(CLUSTER) == {*new.values()} | {f"old{n}" for n in range(1, count)}
        target = model.snapshot(*world(model, 3, new))
        needs = [(CLUSTER, "new0"), (ENDPOINT, "new0")]
        target.resources[ROUTE]["r0"] = model.resource("r0", "weights", needs=needs)
        client.talk.stream.publish(target)
        return calls(client.work)

    assert change(100) < 2 * change(10)  # a look at each is 10


def test_a_cluster_goes_once_the_last_route_to_it_was_given_up(delta, model):
    client = routed(delta, model, {"r": "old", "s": "old"})
    client.refuse = {model.resource(route, "1new").body for route in "rs"}
    client.target(*world(model, 2, {"r": "new", "s": "new"}))
    client.refuse = set()
    assert client.removed == []

    client.target(*world(model, 3, {"r": "new", "s": "new"}, content="2")[:-1], (ROUTE,))

    for route, removed in (("r", []), ("s", [(CLUSTER, "old")])):
        assert client.removed == []
        client.say(ROUTE, resource_names_unsubscribe=[route])
        client.work()
        assert client.removed == removed


def test_a_cluster_that_came_back_stays(delta, model):
    client = routed(delta, model, {"r": "old"})
    client.refuse = {model.resource("r", "1new").body}
    client.target(*world(model, 2, {"r": "new"}))

    client.target(*world(model, 3, {"r": "new"}, clusters=["new", "old"]))
    client.target(*world(model, 4, {"r": "new"}, clusters=["new", "old"], content="2"))

    assert client.removed == []
    assert client.has(ROUTE) == {"r"}
    client.target(*world(model, 5, {"r": "new"}, content="2"))
    assert client.removed == [(CLUSTER, "old")]


def test_a_removal_that_waits_goes_when_the_route_is_given_up(delta, model):
    client = routed(delta, model, {"r": "old", "s": "new"})
    client.refuse = {model.resource("r", "1new").body}
    client.target(*world(model, 2, {"r": "new", "s": "new"}))
    assert client.removed == []

    client.say(ROUTE, resource_names_unsubscribe=["r"])
    client.work()

    assert client.removed == [(CLUSTER, "old")]


def test_a_removal_waits_for_a_listener_that_asks_for_its_types_later(delta, model):
    """A type that is opened while removals wait counts as well."""
    client = routed(delta, model, {"r": "old", "s": "new"})
    listener = (LISTENER, model.resource("l", needs=[(CLUSTER, "old")]))
    client.target(*world(model, 2, {"r": "old", "s": "new"}), listener)
    client.refuse = {model.resource("r", "1new").body}
    client.target(*world(model, 3, {"r": "new", "s": "new"}), listener)
    client.say(LISTENER)
    client.work()
    client.refuse = set()

    client.target(*world(model, 4, {"r": "new", "s": "new"}, content="2"), listener)
    kept = list(client.removed)
    client.target(*world(model, 5, {"r": "new", "s": "new"}, content="2"), (LISTENER,))

    assert (client.has(ROUTE), kept) == ({"r", "s"}, [])
    assert client.removed == [(LISTENER, "l"), (CLUSTER, "old")]
