"""A model of a client, and small worlds for it, shared by the protocol tests."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest

from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane._pb.node_pb2 import Node
from controlplane.xds.delta import DeltaStream
from controlplane.xds.parts import Part, Parts
from controlplane.xds.past import NO_PAST, Past
from controlplane.xds.refusals import NO_REFUSALS, Refusals
from controlplane.xds.sharing import NO_NAMES, NOTHING
from controlplane.xds.snapshot import Resource, Snapshot, content_hash
from controlplane.xds.sotw import SotwStream
from controlplane.xds.stream import WINDOW
from controlplane.xds.type_urls import (
    CLUSTER,
    EAGER,
    ENDPOINT,
    LISTENER,
    PUSH_ORDER,
    RIVALS,
    ROUTE,
    SCOPED_ROUTE,
)
from controlplane.xds.version import Version
from controlplane.xds.view import Peer, StreamView

if (here := str(Path(__file__).parent)) not in sys.path:
    sys.path.insert(0, here)  # for what is no test: apart.py, events.py, talk.py
from talk import Talk

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NODE = Node(id="proxy-1", cluster="edge").SerializeToString()
STATIC = ";static"


def resource(name, content="1", *, revision=1, needs=(), follows=None, hollow=False):
    body = f"{name}={content}".encode()
    version = Version(revision, content_hash((body,)))
    return Resource(name, body, version, frozenset(needs), follows, hollow)


def shared(name, owners, *, revision=1, offers=MappingProxyType({})):
    """A resource of several owners; ``owners`` have a content and a cluster each, and may offer something."""

    def needs(cluster):
        return frozenset((kind, cluster) for kind in (CLUSTER, ENDPOINT))

    def join(parts):
        contents = ".".join(f"{part.owner}{part.source[0]}" for part in parts)
        return f"{name}={contents}:{','.join(part.source[1] for part in parts)}".encode()

    parts = {
        o: Part(
            o, needs(cluster), (content, cluster), offers=frozenset((host, "/") for host in offers.get(o, ()))
        )
        for o, (content, cluster) in owners.items()
    }
    body = join(tuple(parts[o] for o in sorted(parts)))
    all_needs = frozenset().union(*(part.needs for part in parts.values()))
    return Resource(name, body, Version(revision, content_hash((body,))), all_needs, parts=Parts(parts, join))


def snapshot(revision, *groups, order=PUSH_ORDER):
    """``groups`` are (type URL, resources...)."""
    return Snapshot(revision, {url: {r.name: r for r in rs} for url, *rs in groups}, order)


@dataclass
class World:
    """Clusters with endpoints, routes over clusters, one scope per route, one listener over all scopes.

    One more scope, of a host, goes from routes to routes; it needs the scope that they have of their own.

    The routes in ``shared`` have owners, each with a content and a cluster. Nobody asks for the endpoints of
    ``static`` clusters.
    """

    revision: int = 1
    clusters: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    static: set[str] = field(default_factory=set)
    hollow: set[str] = field(default_factory=set)
    endpoints: dict[str, int] = field(default_factory=dict)
    routes: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=lambda: {"r": (1, ("a",))})
    shared: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    host: str = "r"
    salt: int = 0

    def snapshot(self) -> Snapshot:
        rev = self.revision
        kinds = {n: f"{c}{STATIC if n in self.static else ''}" for n, c in self.clusters.items()}
        clusters = [resource(n, kind, revision=rev) for n, kind in kinds.items()]
        endpoints = [
            resource(
                n,
                f"{self.endpoints.get(n, 1)}{'-' if n in self.hollow else '+'}",
                revision=rev,
                follows=(CLUSTER, n),
                hollow=n in self.hollow,
            )
            for n in self.clusters
        ]
        named = [*self.routes, *self.shared]
        scopes = [resource(f"s-{n}", f"{n};{self.salt}", revision=rev, needs=[(ROUTE, n)]) for n in named]
        to = self.host if self.host in named else named[0]
        scopes.append(
            resource(
                "host", f"{to};{self.salt}", revision=rev, needs=[(SCOPED_ROUTE, f"s-{to}"), (ROUTE, to)]
            )
        )
        routes = [
            resource(
                n,
                f"{content}:{','.join(names)}",
                revision=rev,
                needs=[(kind, name) for name in names for kind in (CLUSTER, ENDPOINT)],
            )
            for n, (content, names) in self.routes.items()
        ]
        routes += [shared(n, owners, revision=rev) for n, owners in self.shared.items()]
        listener = resource(
            "l",
            f"{self.salt}:{','.join(sorted(named))}",
            revision=rev,
            needs=[(SCOPED_ROUTE, "host")]
            + [ref for n in named for ref in ((SCOPED_ROUTE, f"s-{n}"), (ROUTE, n))],
        )
        return snapshot(
            rev,
            (CLUSTER, *clusters),
            (ENDPOINT, *endpoints),
            (SCOPED_ROUTE, *scopes),
            (ROUTE, *routes),
            (LISTENER, listener),
        )


@dataclass
class Has:
    """What a client has of one type, and its side of the conversation."""

    names: list[str] | None = None  # None: asks for everything
    bodies: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)  # delta
    version: str = ""  # state of the world
    nonce: str = ""
    asked: bool = False
    known: set[str] = field(default_factory=set)  # what the server has seen us accept on this stream


class Client:
    """Behaves like Envoy.

    Clusters, scopes and listeners by wildcard, endpoints and routes by name; the ACK of clusters is withheld
    until the new and changed ones have endpoints; the good part of a refused batch is applied.

    ``poison`` are bodies that it refuses. A ``lazy`` one leaves out answers to all but the newest of a type;
    a ``hasty`` one accepts clusters once it has asked for their endpoints, unlike Envoy, which waits until it
    has them. Messages wait in ``inbox`` and ``outbox``, so either side may lag.
    """

    begins = CLUSTER

    def __init__(self, variant: str, node: bytes = NODE) -> None:
        self.variant, self.node = variant, node
        self.types = {url: Has() for url in PUSH_ORDER}
        self.types[ENDPOINT].names = []
        self.types[ROUTE].names = []
        self.poison: set[bytes] = set()
        self.poison_parts: set[str] = set()  # owner and content
        self.refused: set[str] = set()  # clusters
        self.turned_down: set[tuple[str, str]] = set()
        self.problems: list[str] = []
        self.lazy = self.hasty = False
        self.unlisted: set[str] = set()  # clusters that another process sent, unknown to this one
        self.connect()

    # -- connection

    def connect(self, order: Sequence[str] = PUSH_ORDER) -> None:
        """Open a stream; what was asked for before is asked for again, in this order."""
        self.open()
        self.inbox: deque[bytes] = deque()
        self.outbox: deque[bytes] = deque()
        self.unacked: dict[str, list[str]] = {url: [] for url in PUSH_ORDER}
        self.warming: set[str] = set()
        self.withheld: str | None = None
        self.left_out: set[tuple[str, str]] = set()
        self.first = True
        again = [url for url in order if self.types[url].asked and self.types[url].names != []]
        for has in self.types.values():
            has.asked, has.known, has.nonce = False, set(), ""
        for url in again or [self.begins]:
            self.request(url)

    def open(self) -> None:
        self.stream = (SotwStream if self.variant == "sotw" else DeltaStream)(Peer("test"), NOW)

    def request(
        self, url: str, *, error: str = "", subscribe=(), unsubscribe=(), nonce: str | None = None
    ) -> None:
        has = self.types[url]
        node = self.node if self.first else b""
        self.first = False
        if self.variant == "sotw":
            unacked = self.unacked[url]
            if has.nonce in unacked:  # whatever the request is for, it answers what has this nonce
                del unacked[: unacked.index(has.nonce) + 1]
            message = DiscoveryRequest(
                node=node,
                type_url=url,
                version_info=has.version,
                resource_names=has.names or (),
                response_nonce=has.nonce,
            )
        elif not has.asked:
            message = DeltaDiscoveryRequest(
                node=node,
                type_url=url,
                resource_names_subscribe=has.names or (),
                initial_resource_versions=has.versions,
            )
        else:
            message = DeltaDiscoveryRequest(
                node=node,
                type_url=url,
                resource_names_subscribe=subscribe,
                resource_names_unsubscribe=unsubscribe,
                response_nonce=nonce or "",
            )
        if error:
            message.error_detail.message = error.encode()
        has.asked = True
        self.outbox.append(message.SerializeToString())

    # -- one step of either side

    def serve(self) -> bool:
        """Let the server read one request, and write what it may."""
        if not self.outbox:
            return False
        self.stream.receive(self.outbox.popleft(), NOW)
        self.pump()
        return True

    def publish(self, snapshot: Snapshot, *, at_once: bool) -> None:
        """Set the target, with the most frequent response in one go or not, and write what may be written."""
        self.write(
            partial(self.stream.push, snapshot, NOW) if at_once else partial(self.stream.publish, snapshot)
        )
        self.pump()

    def pump(self) -> None:
        while self.write(partial(self.stream.next_response, NOW)):
            pass

    def write(self, respond: Callable[[], object]) -> bool:
        """Write one response, if there is one; return whether there was."""
        nacks = {view.type_url: view.nacks for view in self.stream.view().types}
        data = respond()
        if isinstance(data, bytes):
            self.inbox.append(data)
            message = self.parse(data)
            for name, body in self.bodies(message).items():
                nack = nacks[message.type_url].get(name)
                if nack is None or nack.version != Version(0, content_hash((body,))):
                    continue
                if (message.type_url, name) in self.left_out:
                    # Asked for anew, or another one has changed that may have been in its way.
                    self.left_out.discard((message.type_url, name))
                else:
                    self.problems.append(f"{body!r} was sent again after it was refused")
            self.expect(message)
        return isinstance(data, bytes)

    def expect(self, message) -> None:
        """Note that a response is under way."""
        unacked = self.unacked[message.type_url]
        unacked.append(message.nonce)
        if len(unacked) > (WINDOW if message.type_url in EAGER else 1):
            self.problems.append(f"too many un-ACKed responses of {message.type_url}")

    def parse(self, data: bytes):
        return (DiscoveryResponse if self.variant == "sotw" else DeltaDiscoveryResponse).FromString(data)

    def bodies(self, message) -> dict[str, bytes]:
        if self.variant == "sotw":
            return {r.value.split(b"=")[0].decode(): r.value for r in message.resources}
        return {r.name: r.resource.value for r in message.resources}

    def step(self) -> bool:
        """Apply one response."""
        if not self.inbox:
            return False
        message = self.parse(self.inbox.popleft())
        url, has = message.type_url, self.types[message.type_url]
        has.nonce = message.nonce
        bodies = self.bodies(message)
        if len(bodies) != len(message.resources):
            self.problems.append("one name twice in a response")
        removed = self.removed(url, has, bodies, message)
        bad = {
            n: b
            for n, b in bodies.items()
            if self.dislikes(b, has.bodies.get(n, b"=:")) and has.bodies.get(n) != b
        }
        changed = {n: b for n, b in bodies.items() if has.bodies.get(n) != b}
        self.check(url, has, {n: b for n, b in bodies.items() if n not in bad}, removed)
        self.apply(has, bodies, bad, removed, message)
        if not bad and self.variant == "sotw":
            has.version = message.version_info
        if url == CLUSTER:
            self.refused |= set(bad)
        self.turned_down |= {(url, name) for name in bad}
        if url in RIVALS and not bad:
            self.left_out |= {each for each in self.turned_down if each[0] == url}
        elif url in RIVALS and len(changed) > 1:  # tried once more together, then each is tried alone
            self.left_out |= {(url, name) for name in bad}
        error = f"bad {sorted(bad)}" if bad else ""
        if url == CLUSTER and self.hasty:
            self.follow(url, {})
            self.answer(url, message.nonce, error)
            return True
        self.follow(url, changed)
        if url == CLUSTER and self.warming and not bad:
            self.withheld = message.nonce
        else:
            self.answer(url, message.nonce, error)
        if url == ENDPOINT:
            self.warming -= set(bodies) | set(removed)
            self.release()
        return True

    def dislikes(self, body: bytes, has: bytes) -> bool:
        """It does not come to dislike a part that it has."""
        new = set(owned(body)) - set(owned(has)) if self.poison_parts else set()
        return body in self.poison or not self.poison_parts.isdisjoint(new)

    def apply(self, has, bodies, bad, removed, message) -> None:
        for name, body in bodies.items():
            if name not in bad and (has.names is None or name in has.names):
                has.bodies[name] = body
                if not bad:
                    has.known.add(name)
                if self.variant == "delta":
                    has.versions[name] = next(r.version for r in message.resources if r.name == name)
        for name in removed:
            has.bodies.pop(name, None)
            has.known.discard(name)
            has.versions.pop(name, None)

    def removed(self, url, has, bodies, message) -> list[str]:
        if self.variant == "delta":
            return list(message.removed_resources)
        if url in (CLUSTER, LISTENER, SCOPED_ROUTE):
            return [name for name in has.bodies if name not in bodies]
        return []

    def answer(self, url: str, nonce: str, error: str) -> None:
        if self.lazy and not error and any(self.parse(data).type_url == url for data in self.inbox):
            return  # the answer to the next one tells enough
        unacked = self.unacked[url]
        del unacked[: unacked.index(nonce) + 1]
        self.request(url, error=error, nonce=nonce)

    def time_out(self) -> bool:
        """Envoy stops waiting for endpoints after 15 s."""
        stuck = self.withheld is not None
        self.warming.clear()
        self.release()
        return stuck

    def release(self) -> None:
        if self.withheld is not None and not self.warming:
            nonce, self.withheld = self.withheld, None
            self.answer(CLUSTER, nonce, "")

    def follow(self, url: str, changed) -> None:
        """Subscribe to what the new resources refer to."""
        if url == CLUSTER:
            clusters = {n for n, body in self.types[CLUSTER].bodies.items() if not static(body)}
            self.warming = {n for n in (*self.warming, *changed) if n in clusters}
            self.name(ENDPOINT, sorted(clusters))
            if not self.types[LISTENER].asked and self.withheld is None:
                self.request(LISTENER)
            self.release()
        elif url == LISTENER and self.types[LISTENER].bodies and not self.types[SCOPED_ROUTE].asked:
            self.request(SCOPED_ROUTE)
        elif url == SCOPED_ROUTE:
            self.name(ROUTE, sorted(set(map(led_to, self.types[url].bodies.values()))))

    def name(self, url: str, names: list[str]) -> None:
        has = self.types[url]
        old, has.names = has.names, names
        self.left_out |= {(url, name) for name in old or () if name not in names}
        for name in list(has.bodies):
            if name not in names:
                del has.bodies[name]
                has.known.discard(name)
                has.versions.pop(name, None)
        if not has.asked:
            if names:
                self.request(url)
        elif names != old:
            self.request(
                url,
                subscribe=[n for n in names if n not in old],
                unsubscribe=[n for n in old if n not in names],
            )

    # -- invariants

    def arrived(self, target: Snapshot, view: StreamView) -> None:
        """It has exactly what it asks for of the target, and the server knows it."""
        for url, has in self.types.items():
            wanted = {n: r for n, r in target.of(url).items() if has.names is None or n in has.names}
            assert has.bodies == {n: r.body for n, r in wanted.items()}, url
            if has.asked:
                told = view.of(url)
                assert dict(told.acked) == {n: r.version for n, r in wanted.items()}, url
                assert dict(told.sent) == dict(told.acked)
                assert not told.gated
                assert told.waiting_since is None

    def named(self) -> dict[str, set[str]]:
        """The clusters that each route names."""
        return {name: used(body) for name, body in self.types[ROUTE].bodies.items()}

    def check(self, url, has, bodies, removed) -> None:  # noqa: C901 - one rule for each type
        """A route names only clusters that are here with endpoints; what a route names does not go."""
        clusters = self.types[CLUSTER].bodies
        if url == ROUTE:
            for name, body in bodies.items():
                # An owner's part may move from one route to another.
                before = used(has.bodies.get(name, b"=:")).union(
                    *(used(has.bodies.get(n, b"=:")) for n in "uv")
                )
                for cluster in used(body) - before:
                    if name in has.bodies:
                        if not self.may_name(name, body, cluster):
                            self.problems.append(f"route {body!r} before cluster {cluster}")
                    elif cluster not in clusters and cluster not in self.refused:
                        self.problems.append(f"first route {body!r} before cluster {cluster}")
        if url == SCOPED_ROUTE:
            self.check_host(has, bodies)
        if url == CLUSTER:
            routes = self.types[ROUTE]
            unseen = self.variant == "sotw"  # such a server cannot know what a new stream's client has
            for cluster in removed:
                if unseen and cluster in self.unlisted & self.refused:
                    continue  # another process has not got what it is on, and may not send ours again
                if any(
                    cluster in used(b) for n, b in routes.bodies.items() if n in routes.known or not unseen
                ):
                    self.problems.append(f"cluster {cluster} went while a route names it")
            self.unlisted -= bodies.keys()

    def check_host(self, has, bodies) -> None:
        """A host goes to routes that are here; what a new stream's client has, such a server cannot know."""
        if "host" not in bodies or "host" not in (has.known if self.variant == "sotw" else has.bodies):
            return
        route = led_to(bodies["host"])
        if route != led_to(has.bodies["host"]) and route not in self.types[ROUTE].bodies:
            self.problems.append(f"the host went to {route} before that was there")

    def may_name(self, name: str, body: bytes, cluster: str) -> bool:
        """A later route names what is here with endpoints.

        One that was brought may have a part that was taken back since. So it does not wait without an end for
        what another part needs: what is refused or empty is named, as it is to a client that comes new.
        """
        endpoints = self.types[ENDPOINT].bodies.get(cluster, b"-")
        there = self.types[CLUSTER].bodies.get(cluster)
        if there is not None and (endpoints.endswith(b"+") or static(there)):
            return True
        hopeless = cluster in self.refused or endpoints.endswith(b"-")
        return hopeless and b"." in body and name not in self.types[ROUTE].known


def static(cluster: bytes) -> bool:
    """Whether a cluster has its endpoints with it."""
    return cluster.decode().endswith(STATIC)


def led_to(body: bytes) -> str:
    """The route that a scope leads to."""
    return body.decode().split("=")[1].split(";")[0]


def owned(body: bytes) -> list[str]:
    """The parts of a route that has owners, each with its content."""
    return body.decode().split("=")[1].split(":")[0].split(".")


def used(body: bytes) -> set[str]:
    return set(filter(None, body.decode().split("=")[1].split(":")[1].split(",")))


def settle(client: Client, limit: int = 2000) -> None:
    """Let both sides work until neither has anything to do."""
    client.pump()
    for _ in range(limit):
        if not (client.serve() or client.step() or client.time_out()):
            return
    raise AssertionError("no rest: the two sides never stop talking")


@pytest.fixture(autouse=True)
def _nothing_is_added_to_what_all_share():
    yield
    assert asdict(NO_PAST) == asdict(Past())
    assert asdict(NO_REFUSALS) == asdict(Refusals())
    assert not NO_NAMES
    assert not NOTHING


@pytest.fixture(scope="session")
def model():
    return SimpleNamespace(
        Client=Client,
        Talk=Talk,
        World=World,
        NODE=NODE,
        NOW=NOW,
        resource=resource,
        shared=shared,
        settle=settle,
        snapshot=snapshot,
        owned=owned,
        used=used,
    )


@pytest.fixture(params=["sotw", "delta"])
def talk(request, model):
    return Talk(model, request.param)


@pytest.fixture
def sotw(model):
    return Talk(model, "sotw")


@pytest.fixture
def delta(model):
    return Talk(model, "delta")
