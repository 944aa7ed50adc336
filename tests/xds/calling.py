"""A model of clients of gRPC; no test."""

from __future__ import annotations

from controlplane.xds.type_urls import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE


def caller(model):  # noqa: C901 - the complexity of its methods adds up
    """Return the kind of client that is like gRPC."""

    class Caller(model.Client):
        """Behaves like a process with a gRPC channel for each route that its listener names.

        It asks for everything by name, from the listener on. A channel goes over to a new route when each of
        its clusters is there with endpoints, or was refused; until then it asks for those of the old one too.
        A ``hasty`` one asks for clusters before it answers the route that names them.
        """

        begins = LISTENER

        silent = False  # it has let the time pass in which to drop what it does not use
        taken: frozenset[bytes] = frozenset()  # clusters that it has accepted, and what it has dropped

        def name(self, url, names):
            bodies = self.types[url].bodies
            self.taken |= {body for name, body in bodies.items() if name not in names}
            super().name(url, names)

        def apply(self, has, *given):
            super().apply(has, *given)
            if has is self.types[CLUSTER]:
                self.taken |= {*has.bodies.values()}

        def dislikes(self, body, has):
            """It reads each resource by itself, alike each time: it does not come to refuse such a one.

            It would refuse a set of clusters because of what it had before, or does not ask for any more, and
            take the rest of it.
            """
            return body not in self.taken and super().dislikes(body, has)

        def connect(self, order=PUSH_ORDER):
            self.silent = False
            if not self.types[LISTENER].names:
                for has in self.types.values():
                    has.names = []
                self.types[LISTENER].names = ["l"]
                self.in_force = {}
                self.moved = False
            super().connect(order)

        def follow(self, url, changed):
            self.moved = True
            if self.hasty and url == ROUTE:
                self.look()

        def answer(self, url, nonce, error):
            super().answer(url, nonce, error)
            self.look()

        def look(self):
            """Ask for what it needs now."""
            if not self.moved:
                return
            self.moved = False
            listener = self.types[LISTENER].bodies.get("l", b"l=:")
            self.name(ROUTE, sorted(filter(None, listener.decode().split(":")[1].split(","))))
            routes = self.named()
            wanted = set().union(*routes.values())
            self.name(CLUSTER, sorted(wanted.union(*self.in_force.values())))
            self.name(ENDPOINT, self.with_endpoints())
            self.in_force = {
                name: clusters if self.has_all(clusters) else self.in_force.get(name, set())
                for name, clusters in routes.items()
            }
            self.name(CLUSTER, sorted(wanted.union(*self.in_force.values())))
            self.name(ENDPOINT, self.with_endpoints())

        def with_endpoints(self):
            return sorted(n for n, b in self.types[CLUSTER].bodies.items() if not b.endswith(b";static"))

        def has_all(self, clusters):
            """Whether a channel may go over to a route with these clusters."""
            has = {url: self.types[url].bodies.keys() for url in (CLUSTER, ENDPOINT)}
            static = has[CLUSTER] - set(self.with_endpoints())
            return all(
                (CLUSTER, name) in self.turned_down
                or (name in has[CLUSTER] and (name in static or name in has[ENDPOINT]))
                or (ENDPOINT, name) in self.turned_down
                for name in clusters
            )

        def check(self, url, has, bodies, removed):
            """What the newest routes name, or a channel goes by, does not go: calls would fail."""
            if url == CLUSTER:
                for name, clusters in self.named().items():
                    stuck = {(ROUTE, name), (LISTENER, "l")} & self.turned_down
                    used = clusters if self.silent else clusters.union(self.in_force.get(name, ()))
                    for cluster in used.intersection(removed, has.bodies):
                        # What it has of one that has gone, or that it refused, another process cannot list.
                        gone = cluster not in clusters or (CLUSTER, cluster) in self.turned_down
                        if not (stuck or (gone and cluster in self.unlisted)):
                            self.problems.append(f"cluster {cluster} went while route {name} is by it")
                self.unlisted -= bodies.keys()

        def time_out(self):
            """It asks for nothing more by itself."""
            hesitant = self.stream.hesitant
            self.silent |= hesitant
            self.stream.hear_out()
            self.pump()
            return hesitant

    return Caller
