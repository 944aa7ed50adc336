"""The type URLs that Envoy fetches, the order in which they are pushed, and what else is special to some."""

from __future__ import annotations

from typing import Final

Ref = tuple[str, str]
"""A resource, by its type URL and its name."""

_PREFIX = "type.googleapis.com/envoy.config."

CLUSTER: Final = _PREFIX + "cluster.v3.Cluster"
ENDPOINT: Final = _PREFIX + "endpoint.v3.ClusterLoadAssignment"
SCOPED_ROUTE: Final = _PREFIX + "route.v3.ScopedRouteConfiguration"
ROUTE: Final = _PREFIX + "route.v3.RouteConfiguration"
LISTENER: Final = _PREFIX + "listener.v3.Listener"
EXTENSION: Final = _PREFIX + "core.v3.TypedExtensionConfig"
SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105

# Make before break: what is referred to goes before what refers to it.
PUSH_ORDER: Final = (CLUSTER, ENDPOINT, SCOPED_ROUTE, ROUTE, SECRET, LISTENER)

# State-of-the-world clients take absence from a response of these types for deletion.
# Source: xDS protocol, "Grouping Resources into Responses"; seen for scoped routes in Envoy 1.40.
FULL_STATE: Final = frozenset({CLUSTER, LISTENER, SCOPED_ROUTE})

# Of these types an empty list of names asks for nothing; of the others for everything, as ``*`` does.
# Source: xDS protocol, "How the client specifies what resources to return": of listeners and clusters.
BY_NAME: Final = frozenset({ENDPOINT, ROUTE, SECRET})

# Changes of these types go together in delta, too: a service may have a thousand hosts, and a proxy that took
# one has no reason to refuse the next.
TOGETHER: Final = frozenset({SCOPED_ROUTE})

# Resources of these types exclude one another: two listeners of one address, two scopes of one key. So what
# leaves goes in the response of what may take its place, and what was refused is tried once more when another
# one has gone or changed.
RIVALS: Final = frozenset({LISTENER, SCOPED_ROUTE})

# A newer response of these types does not wait for the answer to an older one: a rollback is one of them.
EAGER: Final = frozenset({ROUTE})

# What connections use as long as they drain on a listener that has changed or gone. The client asks for it no
# more when the last of them has ended; if it is taken away before, Envoy 1.40 answers them with 500 (seen).
DRAINING: Final = frozenset({EXTENSION})

# What stays with a client that has it by name until it asks for it no more: Envoy 1.40 ignores the removal of
# routes and goes on by them, also on listeners that drain, so it needs their clusters as long (seen).
KEPT: Final = frozenset({ROUTE})

# Of these a client that asks by name (gRPC) drops what it uses no longer. It may use it for a while after it
# accepted the routes that left it, and fails calls if it goes in that time (seen with grpcio 1.85).
DROPPED: Final = frozenset({CLUSTER})

# Of these a new listener is given only what comes after it. A client that comes back tells of those that it
# had, also where no listener of its uses them, as after one whose port was taken; a listener that it is given
# then waits for them, and nobody is served (seen in Envoy 1.40).
LISTENED: Final = frozenset({SCOPED_ROUTE})
