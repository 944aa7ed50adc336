"""Values of business metrics that others push, added up until they are stored in an observation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from xxhash import xxh64_intdigest

from controlplane.evidence.observation import Cell, Measure

PROXY = "pushed"  # where they are counted, beside the proxies
MAX_KEYS = 10_000  # that are remembered, the newest
MAX_USERS = 100_000  # of one metric and version
SEED = 0x7075  # who is counted has nothing to do with who has which version

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
class _Users:
    """Who was named of one metric and version; a user's value tells whether they have converted."""

    known: dict[int, bool] = field(default_factory=dict)
    converted: int = 0
    before: int = 0  # of them, those in an observation that was stored

    def sample(self, part: int) -> None:
        """Keep one user in ``part``."""
        self.known = {user: had for user, had in self.known.items() if user % part == 0}
        all_of_them, self.converted = self.converted, sum(self.known.values())
        self.before = self.before * self.converted // max(all_of_them, 1)


@dataclass(slots=True)
class Pushed:
    """Adds up what is pushed.

    Sums leave by ``commit``, once an observation with them was stored; until then ``take`` gives the same
    again. A push with a key counts once as long as this process runs. A user counts once per metric and
    version in each era of a release, however often a push names it: what was known before does not compare
    with a version that nobody had. Of more than MAX_USERS of them every second one counts, of both versions
    alike, then every fourth, and so on. A crash loses what was not stored.
    """

    clock: Callable[[], float] = time.monotonic
    _kept: dict[_Place, tuple[int, float]] = field(default_factory=dict)
    _taken: dict[_Place, tuple[int, float]] = field(default_factory=dict)
    _keys: dict[str, None] = field(default_factory=dict)
    _users: dict[_Place, _Users] = field(default_factory=dict)
    _parts: dict[tuple[str, str], int] = field(default_factory=dict)  # service, metric: one user in so many
    _eras: dict[str, str] = field(default_factory=dict)
    _pushed_at: dict[_Place, float] = field(default_factory=dict)

    def begin(self, service: str, era: str) -> None:
        """Say which era it is; in another one all users are new, and what they did before is gone."""
        if self._eras.get(service, "") == era:
            return
        self._eras[service] = era
        for place in [place for place in self._users if place[0] == service]:
            del self._users[place]
            self._kept.pop(place, None)
        self._pushed_at = {place: at for place, at in self._pushed_at.items() if place[0] != service}
        self._parts = {key: part for key, part in self._parts.items() if key[0] != service}

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
        self._pushed_at[place] = self.clock()
        if key:
            self._keys[key] = None
            while len(self._keys) > MAX_KEYS:
                del self._keys[next(iter(self._keys))]
        n, total = self._of_users(place, values, summed) if values.users else (values.n, values.total)
        before = self._kept.get(place, (0, 0.0))
        self._kept[place] = (before[0] + n, before[1] + total)
        return True

    def _of_users(self, place: _Place, values: Values, summed: bool) -> tuple[int, float]:
        users = self._users.setdefault(place, _Users())
        part, n, total = self._parts.get(place[:2], 1), 0, 0.0
        for user, value in values.users.items():
            key = xxh64_intdigest(user.encode(), SEED)
            if key % part:
                continue
            had = users.known.get(key)
            new = not summed and bool(value) and not had
            n, total = n + (had is None), total + (value if summed else new)
            users.converted += new
            users.known[key] = bool(had) or new
        if len(users.known) > MAX_USERS:
            self._parts[place[:2]] = part * 2
            for other, known in self._users.items():
                if other[:2] == place[:2]:
                    known.sample(part * 2)
        return n, total

    def take(self) -> dict[str, tuple[Measure, ...]]:
        """Return what was added up since the last ``commit``, by service.

        During a release also how old the last push is, and whose values could have come.
        """
        self._taken, now = dict(self._kept), self.clock()
        during = {place for place in self._pushed_at if self._eras.get(place[0])}
        found: dict[str, list[Measure]] = {}
        for place in sorted({*self._taken, *during}):
            service, metric, cell = place
            n, total = self._taken.get(place, (0, 0.0))
            users = self._users.get(place)
            if n or total or place in during:
                among = None if users is None else len(users.known) - users.before
                age = round(max(0.0, now - self._pushed_at[place]), 1)
                found.setdefault(service, []).append(Measure(cell, metric, total, n, among, age))
        return {service: tuple(measures) for service, measures in found.items()}

    def commit(self) -> None:
        """Say that what was taken is stored."""
        for place, (n, total) in self._taken.items():
            now = self._kept[place]
            self._kept[place] = (now[0] - n, now[1] - total)
            if place in self._users:
                # Who converted since then is still in what was kept.
                self._users[place].before = max(0, self._users[place].converted - round(self._kept[place][1]))
            if self._kept[place][0] == 0 and abs(self._kept[place][1]) < 1e-9:
                del self._kept[place]
        self._taken = {}


def cell(segment: str, version: str) -> Cell:
    """Return where a push counts."""
    return Cell(PROXY, segment, version)
