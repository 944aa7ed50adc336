"""How far requests come from few users, learned from how unevenly they fall on proxies.

Users stay with a proxy for a while, as they stay with a version: whoever sends much moves the share of one
proxy as he would move the share of one version. Source: docs/decision-rule.md, "Split check".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt

from controlplane.evidence.observation import Observation
from controlplane.evidence.split import ALONE, Crowding
from controlplane.policy.documents import UNCOMPARED

HALF_LIFE, WINDOW = 1800.0, 30.0  # seconds
ACQUAINTED = 10.0  # windows until it is believed
SAFETY = 1.5
FEWEST = 0.01  # a proxy that decayed to fewer requests than this is forgotten


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the requests of all versions taught. The default is no history at all.

    Attributes:
        seconds: Of the window that is being filled.
        window: Requests in it by proxy group.
        usual: The same of windows before, decayed.
        seen: Decayed sum of how far windows lay from the usual shares, beyond chance; squares.
        possible: Decayed sum of the same if each window had had a single user.
        windows: Decayed number of windows with more than one proxy group.
    """

    seconds: float = 0.0
    window: Mapping[str, float] = field(default_factory=dict)
    usual: Mapping[str, float] = field(default_factory=dict)
    seen: float = 0.0
    possible: float = 0.0
    windows: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there was enough to learn from; with one proxy there never is."""
        return self.windows >= ACQUAINTED

    @property
    def alike(self) -> float:
        """Chance that two requests of half a minute are of one user, rather too large; 0 if unknown."""
        return min(1.0, SAFETY * max(0.0, self.seen) / self.possible) if self.known and self.possible else 0.0

    def within(self, part: float) -> Crowding:
        """Return how crowded a part of the requests may be, in 0..1: heavy users may all be in it."""
        if part <= 0:
            return ALONE
        alike = self.alike
        return Crowding(min(1.0, alike / part), min(1.0, sqrt(alike) / part), self.known)

    def plus(self, observation: Observation) -> Crowd:
        """Return what is known after one more interval."""
        window = dict(self.window)
        left_out = {proxy for proxy, _ in observation.partial}
        for cell, tally in observation.cells:
            if cell.segment not in UNCOMPARED and cell.proxy not in left_out:
                proxy = observation.groups[cell.proxy]
                window[proxy] = window.get(proxy, 0.0) + tally.requests
        seconds = self.seconds + (observation.end - observation.start).total_seconds()
        if seconds < WINDOW:
            return Crowd(seconds, window, self.usual, self.seen, self.possible, self.windows)
        return self._closed(seconds, window)

    def _closed(self, seconds: float, window: Mapping[str, float]) -> Crowd:
        decay = 0.5 ** (seconds / HALF_LIFE)
        both = sorted(window.keys() & self.usual.keys())
        requests, past = fsum(window[p] for p in both), fsum(self.usual[p] for p in both)
        seen = possible = 0.0
        if len(both) > 1 and requests > 1:
            due = [requests * self.usual[p] / past for p in both]
            chance = fsum(d * (1 - d / requests) for d in due)
            seen = fsum((window[p] - d) ** 2 for p, d in zip(both, due, strict=True)) - chance
            possible = chance * (requests - 1)
        usual = {
            proxy: kept
            for proxy in sorted(window.keys() | self.usual.keys())
            if (kept := self.usual.get(proxy, 0.0) * decay + window.get(proxy, 0.0)) >= FEWEST
        }
        return Crowd(
            usual=usual,
            seen=self.seen * decay + seen,
            possible=self.possible * decay + possible,
            windows=self.windows * decay + (possible > 0),
        )

    def to_json(self) -> list[object]:
        """Return plain values; nothing is lost."""
        return [self.seconds, dict(self.window), dict(self.usual), self.seen, self.possible, self.windows]

    @classmethod
    def from_json(cls, data: Sequence[object]) -> Crowd:
        """Return what :meth:`to_json` was made from."""
        return cls(*data)  # type: ignore[arg-type]
