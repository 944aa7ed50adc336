"""The least Envoy for each kind of listener, and why: what it is given has to mean there what it means here.

Envoy ignores fields that it does not know in what comes by xDS. So a proxy below the least version is refused
as a whole: no part of a segment is ever left out for one, which would make the segment wider. A proxy that
does not say its version is taken to be too old. A setting of a service that an old proxy may ignore without
harm does not count for that: the proxy is served, and shown with what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.policy.capabilities import KINDS, Kind
from controlplane.policy.documents import Service

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Need:
    """Something that older versions cannot do.

    Attributes:
        what: Its name, for people.
        since: The first version that can.
        source: Where that is written.
    """

    what: str
    since: Version
    source: str


USER_HASH: Final = Need(
    "versions by the hash of the user (`use_hash_policy`)", (1, 36, 0), "release notes 1.36.0, router"
)
EXPORT: Final = Need(
    "statistics pushed by name with their start (`DropAction`)",
    (1, 37, 0),
    "release notes 1.37.0, otlp_stat_sink",
)
STATS_LOGGER: Final = Need(
    "counts by service, segment and version (`stats_scope`)", (1, 38, 0), "release notes 1.38.0, access_log"
)
SCOPED_ROUTES: Final = Need(
    "scoped routes of a listener that is added later", (1, 38, 0), "release notes 1.38.0, scoped_rds"
)
INSPECTOR: Final = Need(
    "connections told from HTTP that never send a line end",
    (1, 39, 0),
    "release notes 1.39.0, http_inspector",
)
OTHER_VERSION: Final = Need(
    "retries on the other version (`refresh_cluster_on_retry`)", (1, 39, 0), "release notes 1.39.0, router"
)

NEEDS: Final[Mapping[Kind, tuple[Need, ...]]] = {
    "edge": (USER_HASH, EXPORT, STATS_LOGGER, SCOPED_ROUTES),
    "local": (USER_HASH, EXPORT, STATS_LOGGER, SCOPED_ROUTES),
    "transparent": (USER_HASH, EXPORT, STATS_LOGGER, SCOPED_ROUTES, INSPECTOR),
    "adopt": (USER_HASH, EXPORT),
    "grpc": (),
}


def too_old(kind: Kind, version: Version | None) -> str | None:
    """Return why a proxy of this version cannot have a listener of this kind, or None."""
    missing = [need for need in NEEDS[kind] if version is None or version < need.since]
    if not missing:
        return None
    least = shown(max(need.since for need in NEEDS[kind]))
    if version is None:
        return f"does not say its Envoy version; a listener of kind {kind} needs {least} or newer"
    listed = ", ".join(f"{need.what} since {shown(need.since)}" for need in missing)
    return f"Envoy {shown(version)} is too old for a listener of kind {kind}, which needs {least}: {listed}"


def lacks(services: Iterable[Service], version: Version | None) -> tuple[str, ...]:
    """Return which settings of services have no effect on a proxy of this version, with the reason."""
    if version is None or version >= OTHER_VERSION.since:
        return ()
    text = f"has no effect on Envoy {shown(version)}, only since {shown(OTHER_VERSION.since)}"
    return tuple(
        f"retries.other_version of service {service.name!r} {text}: retries stay within the version"
        for service in services
        if service.retries is not None and service.retries.other_version
    )


def shown(version: Version) -> str:
    """Return ``1.38.0``."""
    return ".".join(map(str, version))


def table() -> str:
    """Return what needs which version as a table in Markdown."""
    return "\n".join(["| needed | since | by | source |", "|---|---|---|---|", *_rows()])


def _rows() -> Iterator[str]:
    for need in dict.fromkeys(need for kind in KINDS for need in NEEDS[kind]):
        kinds = ", ".join(f"`{kind}`" for kind in KINDS if need in NEEDS[kind])
        yield f"| {need.what} | {shown(need.since)} | {kinds} | {need.source} |"
    need = OTHER_VERSION
    yield f"| {need.what} | {shown(need.since)} | `retries.other_version` | {need.source} |"
