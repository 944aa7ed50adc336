"""What is known of proxies in an interval, once for all that are given the same services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from typing import Literal, TypeVar

from controlplane.policy.values import format_seconds
from controlplane.sources.envoy import VERSIONED

# Between two exports is what falls just after an interval's end; a tuple holds the reason why it is partial.
State = Literal["fresh", "between", "late", "silent"] | tuple[str]
Named = TypeVar("Named", str, tuple[str, str])  # a proxy, or a proxy and a reason

NOTHING: Mapping[str, str] = {}


@dataclass(slots=True)
class Audience:
    """The proxies with the same services, each list in the order of their names.

    Attributes:
        fresh: As in an observation, and so on.
        late: Likewise.
        silent: Likewise.
        partial: With the reason, for all services.
        reporting: Likewise.
        bypassed: By service: the proxies whose counts of it are partial, with the reason, and of others not.
        healthy: By proxy: what it said of the endpoints of clusters.
    """

    fresh: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    partial: list[tuple[str, str]] = field(default_factory=list)
    reporting: list[str] = field(default_factory=list)
    bypassed: dict[str, dict[str, str]] = field(default_factory=dict)
    healthy: list[tuple[str, Mapping[str, int]]] = field(default_factory=list)

    def place(self, proxy: str, state: State, bypassed: Mapping[str, str] = NOTHING) -> None:
        """Take a proxy in; call it in the order of names."""
        match state:
            case "fresh":
                self.fresh.append(proxy)
            case "late":
                self.late.append(proxy)
            case "silent":
                self.silent.append(proxy)
            case (reason,):
                self.partial.append((proxy, reason))
        if bypassed and state in ("fresh", "between", "late"):
            for service, reason in bypassed.items():
                self.bypassed.setdefault(service, {})[proxy] = reason


def told(state: State, bypassed: Mapping[str, str], since: timedelta) -> str:
    """Return why the counts of a proxy that was heard of so long ago do not count, or ''."""
    match state:
        case "silent":
            return f"silent for {format_seconds(since)}"
        case "late":
            return "late"
        case (reason,):
            return reason
    return "; ".join(bypassed.values())


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of the proxies of one service, as an observation says it."""

    fresh: tuple[str, ...]
    late: tuple[str, ...]
    silent: tuple[str, ...]
    partial: tuple[tuple[str, str], ...]
    reporting: tuple[str, ...]
    healthy: tuple[tuple[str, str, int], ...] = ()


class Audiences:
    """All proxies, by their services."""

    def __init__(self) -> None:
        self._of: dict[frozenset[str], Audience] = {}
        self._told: dict[tuple[frozenset[str], ...], Told] = {}

    def of(self, services: frozenset[str]) -> Audience:
        """Return where the proxies with these services belong."""
        found = self._of.get(services)
        if found is None:
            found = self._of[services] = Audience()
        return found

    def services(self) -> frozenset[str]:
        """Return the services of all."""
        return frozenset().union(*self._of)

    def told(self, service: str, versions: AbstractSet[str] = frozenset()) -> Told:
        """Return what is known of those that are given a service; ``versions``: whose endpoints matter.

        Call it when all are placed: services with the same proxies share what is said of these.
        """
        which = tuple(services for services in self._of if service in services)
        mine = [self._of[services] for services in which]
        told = self._told.get(which)
        if told is None:
            told = self._told[which] = _together(mine)
        if apart := {proxy: why for a in mine for proxy, why in a.bypassed.get(service, NOTHING).items()}:
            told = replace(
                told,
                fresh=tuple(proxy for proxy in told.fresh if proxy not in apart),
                late=tuple(proxy for proxy in told.late if proxy not in apart),
                partial=tuple(sorted((*told.partial, *apart.items()))),
            )
        if not versions:
            return told
        said = sorted(chain.from_iterable(a.healthy for a in mine), key=_proxy)
        return replace(told, healthy=_healthy(said, service, versions))


def _together(audiences: list[Audience]) -> Told:
    return Told(
        _joined([a.fresh for a in audiences]),
        _joined([a.late for a in audiences]),
        _joined([a.silent for a in audiences]),
        _joined([a.partial for a in audiences]),
        _joined([a.reporting for a in audiences]),
    )


def _healthy(
    told: Iterable[tuple[str, Mapping[str, int]]], service: str, versions: AbstractSet[str]
) -> tuple[tuple[str, str, int], ...]:
    clusters = [(version, f"{service}{VERSIONED}{version}") for version in sorted(versions)]
    return tuple(
        (proxy, version, healthy[cluster])
        for proxy, healthy in told
        for version, cluster in clusters
        if cluster in healthy
    )


def _joined(lists: list[list[Named]]) -> tuple[Named, ...]:
    if len(lists) == 1:
        return tuple(lists[0])
    return tuple(sorted(chain.from_iterable(lists)))


def _proxy(told: tuple[str, Mapping[str, int]]) -> str:
    return told[0]
