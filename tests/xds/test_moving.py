"""A host goes from routes to others: those must have it, whatever parts of them wait or are refused."""

from __future__ import annotations

import pytest
from talk import Talk

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE

CLUSTERS = ("a", "b", "c")
ROUTES = ("old", "new")


class Proxy:
    """A client that answers all it gets, and refuses routes with a part that it does not like."""

    def __init__(self, talk, model):
        self.talk, self.model, self.dislikes, self.revision = talk, model, set(), 0
        self.has, self.came, self.accepted = {}, [], {}

    def set(self, *world, **more):
        """Let the hosts lead to these routes; return the owners' contents in each route that came."""
        groups = self.world(*world, **more)
        self.talk.publish(self.revision, *groups)
        if self.revision == 1:
            for url in (CLUSTER, ENDPOINT, SCOPED_ROUTE, ROUTE):
                self.talk.ask(url, self.names(url))
        return self.answer()

    def world(self, name, owners, offers, *, hollow=""):
        """Owners have a content, and a cluster if it has not their name."""
        self.revision += 1
        model, rev = self.model, self.revision
        ends = [
            model.resource(n, str(n in hollow), revision=rev, follows=(CLUSTER, n), hollow=n in hollow)
            for n in CLUSTERS
        ]
        needs = [(ROUTE, name), (SCOPED_ROUTE, f"~{name}")]
        scopes = [model.resource(f"~{name}", name, revision=rev, needs=needs[:1])]
        hosts = sorted(host for offered in offers.values() for host in offered)
        scopes += [model.resource(host, name, revision=rev, needs=needs) for host in hosts]
        owned = {o: n if isinstance(n, tuple) else (n, o) for o, n in owners.items()}
        routes = model.shared(name, owned, revision=rev, offers=offers)
        clusters = [model.resource(n, "1") for n in CLUSTERS]
        return (CLUSTER, *clusters), (ENDPOINT, *ends), (SCOPED_ROUTE, *scopes), (ROUTE, routes)

    def names(self, url):
        return {ENDPOINT: CLUSTERS, ROUTE: ROUTES}.get(url, ())

    def answer(self):
        seen = []
        for _ in range(20):
            last, self.talk.last = self.talk.last, {}
            for url, message in last.items():
                bodies = [
                    r.value if self.talk.variant == "sotw" else r.resource.value for r in message.resources
                ]
                parts = [part for body in bodies for part in self.model.owned(body)] if url == ROUTE else []
                refused = bool(self.dislikes & set(parts))
                if parts:
                    seen.append(" ".join(parts))
                if url == SCOPED_ROUTE and bodies:
                    scopes = dict(body.decode().split("=") for body in bodies)
                    self.came.append(scopes)
                    self.has |= scopes
                if not refused:
                    self.accepted[url] = getattr(message, "version_info", "")
                names = self.names(url) if self.talk.variant == "sotw" else ()
                self.talk.ask(url, names, nonce=message.nonce, error="bad" if refused else "")
            if not last:
                return seen
        raise AssertionError("no rest")


@pytest.fixture
def proxy(talk, model):
    return Proxy(talk, model)


def test_a_rollback_gets_through_beside_a_new_owner_that_is_refused(proxy):
    proxy.set("old", {"a": 1, "b": 1}, {"a": ["x"]})
    proxy.dislikes = {"c1"}

    joined = proxy.set("new", {"a": 1, "b": 1, "c": 1}, {"a": ["x"], "c": ["z"]})
    rolled_back = proxy.set("new", {"a": 2, "b": 1, "c": 1}, {"a": ["x"], "c": ["z"]})

    assert joined == ["a1 b1 c1", "a1 b1"]
    assert rolled_back == ["a2 b1"]
    assert proxy.has["x"] == "new"
    assert proxy.talk.view(ROUTE).nacks["new"].owners == {"c"}


def test_an_owner_whose_change_is_refused_stays_as_it_was_under_another_name(proxy):
    proxy.set("old", {"a": 1, "b": 1}, {"a": ["x"]})
    proxy.dislikes = {"b2"}

    seen = proxy.set("new", {"a": 2, "b": 2}, {"a": ["x"], "b": ["y"]})

    assert seen[0] == "a2 b2"
    assert seen[-1] == "a2 b1"
    assert proxy.talk.view(ROUTE).nacks["new"].owners == {"b"}


def test_first_routes_that_are_refused_are_refused_as_a_whole(proxy):
    proxy.dislikes = {"b1"}

    assert proxy.set("old", {"a": 1, "b": 1}, {"a": ["x"]}) == ["a1 b1"]


@pytest.mark.parametrize("trouble", ["hollow", "refused"])
def test_a_host_stays_while_the_part_that_has_it_does_not_arrive(proxy, trouble):
    """Its new owner was there before, without it."""
    proxy.set("old", {"a": 1, "b": 1}, {"a": ["x", "y"], "b": ["z"]})
    moved = {"a": ["x"], "b": ["y", "z"]}
    proxy.dislikes = {"b2"} if trouble == "refused" else set()

    waiting = proxy.set("new", {"a": 2, "b": (2, "c")}, moved, hollow="c" if trouble == "hollow" else "")
    before = {host: proxy.has[host] for host in "xyz"}
    proxy.dislikes = set()
    arrived = proxy.set("new", {"a": 2, "b": (3, "c")}, moved)

    assert waiting[-1] == "a2 b1"
    assert before == {"x": "new", "y": "old", "z": "new"}
    assert arrived == ["a2 b3"]
    assert {proxy.has[host] for host in "xyz"} == {"new"}


def test_what_one_owner_gives_to_another_is_never_with_nobody(proxy):
    """Within the same routes both wait, where the receiver has to wait."""
    proxy.set("old", {"a": 1, "b": 1}, {"a": ["x", "y"], "b": ["z"]})
    moved = {"a": ["x"], "b": ["y", "z"]}

    waiting = proxy.set("old", {"a": 2, "b": (2, "c")}, moved, hollow="c")
    arrived = proxy.set("old", {"a": 2, "b": (2, "c")}, moved)

    assert waiting == []
    assert arrived == ["a2 b2"]


def test_hosts_that_move_go_together(proxy):
    proxy.set("old", {"a": 1}, {"a": ["w", "x", "y", "z"]})
    proxy.came.clear()

    proxy.set("new", {"a": 1}, {"a": ["w", "x", "y", "z"]})

    if proxy.talk.variant == "delta":
        assert list(map(list, proxy.came)) == [["~new"], list("wxyz")]
    assert {proxy.has[host] for host in "wxyz"} == {"new"}


@pytest.mark.parametrize("known", [True, False])
def test_a_client_of_whole_sets_that_comes_back_is_known_by_the_hash_of_its_set(sotw, model, known):
    """Its host waits for the routes. Another process has to send it there at once, as it must list all."""
    proxy = Proxy(sotw, model)
    proxy.set("old", {"a": 1}, {"a": ["x"]})
    groups, before = proxy.world("new", {"a": 2}, {"a": ["x"]}), proxy.accepted[SCOPED_ROUTE]
    proxy.talk, proxy.came = Talk(model, "sotw"), []
    proxy.talk.publish(proxy.revision, *groups)

    for url in (CLUSTER, ENDPOINT):
        proxy.talk.ask(url, proxy.names(url))
    proxy.talk.ask(SCOPED_ROUTE, version_info=before if known else "1.0123456789abcdef")
    proxy.talk.ask(ROUTE, ["old"], version_info=proxy.accepted[ROUTE])
    proxy.answer()
    proxy.talk.ask(ROUTE, ROUTES)  # a scope has named the new ones
    proxy.answer()

    moved = {"~new": "new", "x": "new"}
    waits = {"~new": "new", "~old": "old", "x": "old"}
    assert proxy.came[0] == (waits if known else moved)
    assert proxy.came[-1] == moved


@pytest.mark.parametrize("known", [True, False])
def test_what_a_client_of_whole_sets_accepted_last_is_known_when_it_comes_back(sotw, model, known):
    """So a rollback gets through beside a part that it refuses; it is not, to another process."""
    proxy = Proxy(sotw, model)
    proxy.dislikes, offers = {"c1"}, {"a": ["x"], "c": ["z"]}
    proxy.set("old", {"a": 1}, {"a": ["x"]})
    proxy.set("new", {"a": 1, "c": 1}, offers)
    proxy.talk = Talk(model, "sotw")
    proxy.talk.publish(proxy.revision, *proxy.world("new", {"a": 1, "c": 1}, offers))
    for url in (CLUSTER, ENDPOINT, SCOPED_ROUTE):
        proxy.talk.ask(url, proxy.names(url), version_info=proxy.accepted[url])
    proxy.talk.ask(ROUTE, ["new"], version_info=proxy.accepted[ROUTE] if known else "1.0123456789abcdef")
    back = proxy.answer()

    rolled_back = proxy.set("new", {"a": 2, "c": 1}, offers)

    assert (back, rolled_back) == ((["a1 c1", "a1"], ["a2"]) if known else (["a1 c1"], ["a2 c1"]))


def test_routes_that_are_refused_as_a_whole_hold_back_no_listener(talk, model):
    """It leads to new hosts of others, too."""
    proxy = Proxy(talk, model)
    *others, (_, old) = proxy.world("old", {"a": 1}, {"a": ["x"]})
    bad, proxy.dislikes = model.shared("new", {"b": (1, "b")}, offers={"b": ["y"]}), {"b1"}
    before, after = (
        model.resource("l", names, needs=[(SCOPED_ROUTE, "~old"), *((ROUTE, n) for n in names.split())])
        for names in ("old", "old new")
    )
    talk.publish(1, *others, (ROUTE, old), (LISTENER, before))
    for url in (CLUSTER, ENDPOINT, SCOPED_ROUTE, ROUTE, LISTENER):
        talk.ask(url, proxy.names(url))
    proxy.answer()

    early = talk.publish(2, *others, (ROUTE, old, bad), (LISTENER, after))
    refused = proxy.answer()

    assert early == [["new"]]
    assert refused == ["b1"]
    assert talk.view(LISTENER).acked["l"] == after.version
