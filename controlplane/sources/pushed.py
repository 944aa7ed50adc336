"""Values of business metrics that others push, added up until they are stored in an observation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xxhash import xxh64_intdigest

from controlplane.evidence.observation import Cell, Measure

PROXY = "pushed"  # where they are counted, beside the proxies
MAX_KEYS = 10_000  # that are remembered, the newest
MAX_USERS = 100_000  # of one metric and version

_Place = tuple[str, str, Cell]  # service, metric, cell


@dataclass(frozen=True, slots=True)
class Values:
    """What one push says of a metric of one version.

    Attributes:
        n: What the sum is divided by: requests, orders, users.
        total: The sum; for a metric that is counted, how many of the ``n`` have it.
        users: Instead of both: the value of each user, by an id that says who it is.
    """

    n: int = 0
    total: float = 0.0
    users: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Pushed:
    """Adds up what is pushed.

    Sums leave by ``commit``, once an observation with them was stored; until then ``take`` gives the same
    again. A user counts once per metric and version, however often a push names it, as long as this process
    runs; so does a push with a key. A crash loses what was not stored.
    """

    _kept: dict[_Place, tuple[int, float]] = field(default_factory=dict)
    _taken: dict[_Place, tuple[int, float]] = field(default_factory=dict)
    _keys: dict[str, None] = field(default_factory=dict)
    _users: dict[_Place, dict[int, bool]] = field(default_factory=dict)

    def receive(self, place: _Place, values: Values, key: str, *, summed: bool) -> bool:
        """Take in a push; False if one with this key was taken in before.

        Args:
            place: Service, metric and where it counts.
            values: What is added.
            key: Names the push, so that it may be sent again; '' for none.
            summed: Whether the values of users are added up, not counted.
        """
        if key and key in self._keys:
            return False
        if key:
            self._keys[key] = None
            while len(self._keys) > MAX_KEYS:
                del self._keys[next(iter(self._keys))]
        n, total = self._of_users(place, values, summed) if values.users else (values.n, values.total)
        before = self._kept.get(place, (0, 0.0))
        self._kept[place] = (before[0] + n, before[1] + total)
        return True

    def _of_users(self, place: _Place, values: Values, summed: bool) -> tuple[int, float]:
        known = self._users.setdefault(place, {})
        n, total = 0, 0.0
        for user, value in values.users.items():
            key = xxh64_intdigest(user.encode())
            had = known.get(key)
            n += had is None
            total += value if summed else bool(value) and not had
            known[key] = bool(had) or bool(value)
        while len(known) > MAX_USERS:
            del known[next(iter(known))]
        return n, total

    def take(self) -> dict[str, tuple[Measure, ...]]:
        """Return what was added up since the last ``commit``, by service."""
        self._taken = dict(self._kept)
        found: dict[str, list[Measure]] = {}
        for (service, metric, cell), (n, total) in sorted(self._taken.items()):
            if n or total:
                found.setdefault(service, []).append(Measure(cell, metric, total, n))
        return {service: tuple(measures) for service, measures in found.items()}

    def commit(self) -> None:
        """Say that what was taken is stored."""
        for place, (n, total) in self._taken.items():
            now = self._kept[place]
            self._kept[place] = (now[0] - n, now[1] - total)
            if self._kept[place][0] == 0 and abs(self._kept[place][1]) < 1e-9:
                del self._kept[place]
        self._taken = {}


def cell(segment: str, version: str) -> Cell:
    """Return where a push counts."""
    return Cell(PROXY, segment, version)
