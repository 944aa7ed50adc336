"""How far requests come from few users, learned from how unevenly they fall on proxies.

Users stay with a proxy for a while, as they stay with a version: whoever sends much moves the share of one
proxy as he would move the share of one version. What moves traffic as a whole does it now and then, by a
restart or a balancer's change; users do it all the time. Source: docs/decision-rule.md, "Split check".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt
from operator import ne

from controlplane.evidence.observation import GROUPS, Observation
from controlplane.evidence.split import ALONE, Crowding
from controlplane.policy.documents import UNCOMPARED

WINDOW, FULL = 30.0, 30  # seconds, and requests, that a window has at least
PAST, FEWEST = 10, 3  # windows by which the next one is judged: at most, and at least
KEPT = 60  # windows that are remembered by how uneven they were
APART = 5  # one of so many, the most uneven ones, tells of proxies and not of users
ACQUAINTED = 10  # windows until it is believed
SAFETY = 1.5
# The mean of what is left of chi-squares over their degrees of freedom, by these less one.
LEFT = (
    0.438,
    0.597,
    0.674,
    0.719,
    0.751,
    0.774,
    0.792,
    0.806,
    0.818,
    0.828,
    0.836,
    0.844,
    0.85,
    0.856,
    0.861,
)

Counts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the requests of all versions taught. The default is no history at all.

    Attributes:
        seconds: Of the window that is being filled.
        window: Requests in it by proxy group.
        gaps: Proxies that were not there, or in doubt, for a part of it.
        past: The same of the last windows, without those.
        uneven: How far each of the last windows lay from those before it, 1 is chance; and its requests.
        alike: Chance that two requests of half a minute are of one user, rather too large; 0 if unknown.
        known: Whether there was enough to learn from; with one proxy there never is.
    """

    seconds: float = 0.0
    window: Counts = field(default_factory=dict)
    gaps: tuple[str, ...] = ()
    past: tuple[Counts, ...] = ()
    uneven: tuple[tuple[float, float], ...] = ()
    alike: float = 0.0
    known: bool = False

    def within(self, part: float) -> Crowding:
        """Return how crowded a part of the requests may be, in 0..1: heavy users may all be in it."""
        if part <= 0:
            return ALONE
        return Crowding(min(1.0, self.alike / part), min(1.0, sqrt(self.alike) / part), self.known)

    def plus(self, observation: Observation) -> Crowd:
        """Return what is known after one more interval.

        One without requests tells nothing of proxies, and does not begin a window.
        """
        if not observation.cells and not self.seconds:
            return self
        left_out = {proxy for proxy, _ in observation.partial}
        there = _there(observation)
        window = {**dict.fromkeys(sorted(there or ()), 0.0), **self.window}
        for cell, tally in observation.cells:
            counts = cell.proxy not in left_out if there is None else cell.proxy in there
            if counts and cell.segment not in UNCOMPARED:
                proxy = observation.groups[cell.proxy]
                window[proxy] = window.get(proxy, 0.0) + tally.requests
        gaps = self.gaps
        if there is not None and self.seconds and (odd := there ^ self.window.keys()):
            gaps = tuple(sorted({*gaps, *odd}))
        seconds = self.seconds + (observation.end - observation.start).total_seconds()
        filling = Crowd(seconds, window, gaps, self.past, self.uneven, self.alike, self.known)
        full = seconds >= WINDOW and fsum(window.values()) >= FULL
        return filling._closed() if full else filling

    def _closed(self) -> Crowd:
        whole = {proxy: got for proxy, got in self.window.items() if proxy not in self.gaps}
        uneven = self.uneven
        if (found := _unevenness(whole, self.past)) is not None:
            uneven = (*uneven, found)[-KEPT:]
        known = self.known or len(uneven) >= ACQUAINTED
        alike = _alike(uneven) if len(uneven) >= ACQUAINTED else self.alike
        return Crowd(past=(*self.past, whole)[-PAST:], uneven=uneven, alike=alike, known=known)

    def to_json(self) -> dict[str, object]:
        """Return plain values; nothing is lost."""
        return {
            "seconds": self.seconds,
            "window": dict(self.window),
            "gaps": list(self.gaps),
            "past": [dict(window) for window in self.past],
            "uneven": [list(one) for one in self.uneven],
            "alike": self.alike,
            "known": self.known,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object] | Sequence[object]) -> Crowd:
        """Return what :meth:`to_json` was made from; of an earlier version, what it had come to."""
        if not isinstance(data, Mapping):
            *_, seen, possible, windows = data
            return _of_sums(float(seen), float(possible), float(windows))  # type: ignore[arg-type]
        values: dict[str, object] = dict(data)
        for name in ("gaps", "past"):
            values[name] = tuple(values[name])  # type: ignore[arg-type]
        values["uneven"] = tuple(map(tuple, values["uneven"]))  # type: ignore[call-overload]
        return cls(**values)  # type: ignore[arg-type]


def _there(observation: Observation) -> set[str] | None:
    """The proxies that count in this interval, with traffic or without.

    None if they are too many, or if none of them had any request: then who was there made no difference.
    """
    if not observation.cells or len(observation.fresh) > GROUPS:
        return None
    if any(map(ne, observation.groups, observation.groups.values())):
        return None
    named = {*observation.fresh, *observation.groups}
    return named - {proxy for proxy, _ in observation.partial} - {*observation.silent, *observation.late}


def _unevenness(window: Counts, past: Sequence[Counts]) -> tuple[float, float] | None:
    """How far a window's shares of proxies lie from those before it, 1 is chance, and its requests.

    Only the proxies that all of these windows have are compared. The middle half of what each had before is
    usual, so that a jump that stays is usual soon, and one that is over never was.
    """
    both = sorted(proxy for proxy in window if sum(proxy in one for one in past) >= FEWEST)
    before = [[one[proxy] for proxy in both] for one in past if all(proxy in one for proxy in both)]
    before = [[got / total for got in row] for row in before if (total := fsum(row))]
    requests = fsum(window[proxy] for proxy in both)
    if len(both) < 2 or requests < 2 or len(before) < FEWEST:
        return None
    cut = len(before) // 4
    middle = [fsum(sorted(column)[cut : len(before) - cut]) for column in zip(*before, strict=True)]
    due = [requests * share / total for share in middle] if (total := fsum(middle)) else []
    chance = fsum(d * (1 - d / requests) for d in due)
    freedom = sum(d > 0 for d in due) - 1
    if freedom < 1 or chance <= 0:
        return None
    off = fsum((window[proxy] - d) ** 2 for proxy, d in zip(both, due, strict=True))
    # What is usual is known from few windows, and off by chance itself.
    return off / chance / (1 + 1 / len(before)) / LEFT[min(freedom, len(LEFT)) - 1], requests


def _alike(uneven: Sequence[tuple[float, float]]) -> float:
    kept = sorted(uneven)[: len(uneven) - len(uneven) // APART]
    mean, requests = (fsum(column) / len(kept) for column in zip(*kept, strict=True))
    return min(1.0, SAFETY * max(0.0, mean - 1) / (requests - 1))


def _of_sums(seen: float, possible: float, windows: float) -> Crowd:
    known = windows >= ACQUAINTED
    return Crowd(
        alike=min(1.0, SAFETY * max(0.0, seen) / possible) if known and possible else 0.0, known=known
    )
