"""The names that tie resources, routes and statistics together."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from controlplane.policy.documents import UserSource

METADATA = "turnout"  # key of the routes' metadata: service, release, segment
ATTEMPTS = "attempts"  # set in it where a request may have several
SCOPE_HEADER = "x-turnout-scope"
FRESH_USER_HEADER = "x-turnout-fresh-user"  # an identity for a user who may turn out to have none
SOURCE_HEADER = "x-turnout-source"  # the client's address
MIRROR_HEADER = "x-turnout-mirror"  # told to endpoints that get a copy of a request
VERSION_HEADER = "x-turnout-version"  # of responses, where a service explains itself; of requests, inside
CLAIM_HEADER = "x-turnout-claim-"  # and the name of a verified claim
OWN_HEADERS = "x-turnout-"  # never taken from outside
SCOPE_NONE = "-"  # the scope of hosts that nobody claims; no name can be this
PASSTHROUGH = "passthrough"  # the cluster of what goes where it was meant to go; services have a ~ in theirs

_SEPARATOR = "~"  # cannot occur in names
_DOT = "^"  # nor can this
_REST = "."  # the scope of all other hosts; no host can be this


def claim_header(claim: str) -> str:
    """Return the header that a claim is written into: small letters and digits, the rest in hexadecimal."""
    return CLAIM_HEADER + "".join(
        c if c.isdigit() or c.islower() else f"-{ord(c):02x}" for c in claim
    )  # claims are ASCII, so no two have one header


def whole_header(source: UserSource) -> str | None:
    """Return the header whose whole value is the identity, or None if it is a part of one."""
    return claim_header(source.claim) if source.claim else source.header


def group_name(service: str, hosts: Iterable[str]) -> str:
    """Return the name of the route configuration of some hosts, given the first service that has them.

    It tells that service and the first host, and has a hash if there are more. Other hosts have another one,
    so that what leads to the former one keeps all that it leads to.
    """
    first, *others = sorted(map(scope_name, hosts))
    name = f"{service}{_SEPARATOR}{first}"
    if not others:
        return name
    digest = blake2b("\n".join((first, *others)).encode(), digest_size=4).hexdigest()
    return f"{name}{_SEPARATOR}{digest}"


def group_first(group: str) -> str:
    """Return the first of the services of a group, given its name."""
    return group.partition(_SEPARATOR)[0]


def scope_name(host: str) -> str:
    """Return the scope of a host; ``*`` as the name of a resource would mean all of them."""
    return _REST if host == "*" else host


def anchor_name(group: str) -> str:
    """Return the name of the scope of no request: by it a proxy asks for the routes of a group."""
    return f"{_SEPARATOR}{group}"


def anchored(scope: str) -> str | None:
    """Return the group of an anchor, or None if this scope is none."""
    return scope.removeprefix(_SEPARATOR) if scope.startswith(_SEPARATOR) else None


def cluster_name(service: str, version: str) -> str:
    """Return the name of the cluster of one version of a service."""
    return f"{service}{_SEPARATOR}{version}"


def mirror_cluster_name(service: str, version: str) -> str:
    """Return the name of the cluster that gets copies: what is counted there is nobody's request."""
    return _SEPARATOR.join((service, version, "mirror"))


def segment_cluster_name(service: str, version: str, segment: str) -> str:
    """Return the name of the cluster of one version and segment, for clients that count by cluster."""
    return _SEPARATOR.join((service, version, segment))


def in_segment(cluster: str, segment: str) -> str:
    """Return the name of the cluster of the same version for one segment."""
    return f"{cluster}{_SEPARATOR}{segment}"


def stat_name(cluster: str) -> str:
    """Return a cluster's name in statistics: Envoy takes what follows a dot for the name of the counter."""
    return cluster.replace(".", _DOT)


def cluster_of(stat: str) -> str:
    """Return the cluster that has such a name in statistics."""
    return stat.replace(_DOT, ".")


def cluster_version(cluster: str) -> tuple[str, str] | None:
    """Return service and version of a cluster that is ours, or None."""
    service, separator, version = cluster.partition(_SEPARATOR)
    return (service, version) if separator else None


def segment_cluster(cluster: str) -> tuple[str, str, str] | None:
    """Return service, version and segment of such a cluster that is ours, or None."""
    parts = cluster.split(_SEPARATOR, 2)  # segments that were taken apart have it in their names too
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None
