"""The names that tie resources, routes and statistics together."""

from __future__ import annotations

METADATA = "turnout"  # key of the routes' metadata: service, release, segment
ATTEMPTS = "attempts"  # set in it where a request may have several
SCOPE_HEADER = "x-turnout-scope"
FRESH_USER_HEADER = "x-turnout-fresh-user"  # an identity for a user who may turn out to have none
SOURCE_HEADER = "x-turnout-source"  # the client's address
VERSION_HEADER = "x-turnout-version"  # of responses, where a service explains itself
OWN_HEADERS = "x-turnout-"  # never taken from outside
SCOPE_NONE = "-"  # the scope of hosts that nobody claims; no name can be this
PASSTHROUGH = "passthrough"  # the cluster of what goes where it was meant to go; services have a ~ in theirs

_SEPARATOR = "~"  # cannot occur in names
_DOT = "^"  # nor can this


def cluster_name(service: str, version: str) -> str:
    """Return the name of the cluster of one version of a service."""
    return f"{service}{_SEPARATOR}{version}"


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
    parts = cluster.split(_SEPARATOR)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None
