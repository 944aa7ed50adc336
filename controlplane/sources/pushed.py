"""Values of business metrics that others push, added up until they are stored in an observation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from xxhash import xxh64_intdigest

from controlplane.evidence.observation import Cell, Measure, Users

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
    """Who was named of one metric and version, and what each came to: 1 for one who has converted."""

    known: dict[int, float] = field(default_factory=dict)
    total: float = 0.0
    squares: float = 0.0
    converted: int = 0  # where they are counted
    before: int = 0  # of them, those in an observation that was stored

    def add(self, user: int, value: float, *, summed: bool) -> tuple[int, float]:
        """Take in a user's value; return whether they are new, and by how much the total grew."""
        had = self.known.get(user)
        more = value if summed else float(bool(value) and not had)
        self.known[user] = now = (had or 0.0) + more
        self.total, self.squares = self.total + more, self.squares + now**2 - (had or 0.0) ** 2
        self.converted += not summed and bool(more)
        return had is None, more

    def sample(self, part: int) -> None:
        """Keep one user in ``part``."""
        self.known = {user: came_to for user, came_to in self.known.items() if user % part == 0}
        self.total = sum(self.known.values())
        self.squares = sum(came_to**2 for came_to in self.known.values())
        if all_of_them := self.converted:
            self.converted = round(self.total)
            self.before = self.before * self.converted // all_of_them


@dataclass(slots=True)
class Pushed:
    """Adds up what is pushed.

    Sums leave by ``commit``, once an observation with them was stored; until then ``take`` gives the same
    again. A push with a key counts once at its place as long as this process runs. A user counts once per
    metric and version in each era of a release, however often a push names it: what was known before does not
    compare with a version that nobody had. Of more than MAX_USERS of them every second one counts, of both
    versions alike, then every fourth, and so on. A crash loses what was not stored.
    """

    clock: Callable[[], float] = time.monotonic
    born: str = field(default_factory=lambda: secrets.token_hex(4))  # what it adds up is of no other one
    _kept: dict[_Place, tuple[int, float]] = field(default_factory=dict)
    _taken: dict[_Place, tuple[int, float]] = field(default_factory=dict)
    _keys: dict[tuple[_Place, str], None] = field(default_factory=dict)
    _users: dict[_Place, _Users] = field(default_factory=dict)
    _parts: dict[tuple[str, str], int] = field(default_factory=dict)  # service, metric: one user in so many
    _eras: dict[str, str] = field(default_factory=dict)
    _epochs: dict[str, int] = field(default_factory=dict)  # of each service, how often its users were new
    _pushed_at: dict[_Place, float] = field(default_factory=dict)

    def begin(self, service: str, era: str) -> None:
        """Say which era it is; in another one all users are new, and what they did before is gone."""
        if self._eras.get(service, "") == era:
            return
        self._eras[service] = era
        self._epochs[service] = self._epochs.get(service, 0) + 1
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
            key: Names the push among those of its place, so that it may be sent again; '' for none.
            summed: Whether the values of users are added up, not counted.
        """
        named = place, key
        if key and named in self._keys:
            return False
        self._pushed_at[place] = self.clock()
        if key:
            self._keys[named] = None
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
            if key % part == 0:
                new, more = users.add(key, value, summed=summed)
                n, total = n + new, total + more
        if len(users.known) > MAX_USERS:
            self._parts[place[:2]] = part * 2
            for other, known in self._users.items():
                if other[:2] == place[:2]:
                    known.sample(part * 2)
        return n, total

    def take(self) -> dict[str, tuple[Measure, ...]]:
        """Return what was added up since the last ``commit``, by service.

        During a release also how old the last push is, whose values could have come, and what users came to.
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
                came_to = self._came_to(place) if place in during else None
                found.setdefault(service, []).append(Measure(cell, metric, total, n, among, age, came_to))
        return {service: tuple(measures) for service, measures in found.items()}

    def _came_to(self, place: _Place) -> Users | None:
        if (users := self._users.get(place)) is None:
            return None
        epoch = f"{self.born}.{self._epochs[place[0]]}"
        return Users(epoch, len(users.known), users.total, users.squares)

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
