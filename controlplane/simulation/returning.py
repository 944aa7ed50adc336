"""Users of a simulated service who come again, and buy as often as is the habit of each.

They keep their version, so the version that has the better customers sells more without being better. What
is pushed of them goes through the server's own intake.

Source: docs/trying-a-policy.md, "Users who buy again".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.observation import Measure
from controlplane.simulation.business import SPREAD, Business
from controlplane.simulation.noise import Floats
from controlplane.sources.pushed import Pushed, Values, cell

Numbers = NDArray[np.int64]
Place = tuple[str, bool]  # a segment, and whether its users have the canary
SERVICE = "shop"


@dataclass(frozen=True, slots=True)
class Regulars:
    """Users and what they are like.

    Attributes:
        buckets: Of each, in 0..1; those below a share have the canary.
        habits: How often each buys, beside the mean of all.
    """

    buckets: Floats
    habits: Floats

    @classmethod
    def drawn(cls, users: int, habit: float, rng: np.random.Generator) -> Self:
        """Return so many users; ``habit`` is the deviation of the logarithm of how often one buys."""
        buckets, habits = rng.random(users), rng.lognormal(0, habit, users)
        return cls(buckets, habits / habits.mean())


def named(users: Numbers, came_to: Floats) -> Values:
    """Return a push of what some users came to since the last one."""
    return Values(users=dict(zip(map(str, users.tolist()), came_to[users].tolist(), strict=True)))


@dataclass(slots=True)
class _Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class _Group(NamedTuple):
    """Users of a segment and version, with the sums of their habits up to each."""

    users: Numbers
    upto: Floats

    def buying(self, events: int, rng: np.random.Generator) -> Numbers:
        """Return who each of some events is of."""
        found: Numbers = self.users[np.searchsorted(self.upto, rng.random(events) * self.upto[-1], "right")]
        return found


class _Unsaid:
    """What users of one version did since the last push of a metric."""

    def __init__(self, users: int) -> None:
        self.came_to = np.zeros(users)
        self.came = np.zeros(users, dtype=np.bool_)
        self.visits: dict[str, int] = {}  # by segment


class Shoppers:
    """The users of a service in one release: which version they have, what they buy, what is pushed."""

    def __init__(
        self, regulars: Regulars, parts: Mapping[str, float], metrics: Sequence[Business], seed: int
    ) -> None:
        self._regulars, self._rng = regulars, np.random.default_rng((seed, 5))
        count = len(regulars.habits)
        self._segments, self._labels = tuple(parts), dict.fromkeys(parts, "")
        self._segment = self._rng.choice(len(parts), count, p=np.array(list(parts.values())))
        self._groups: dict[Place, _Group] = {}
        self._pushed_metrics = [(i, metric) for i, metric in enumerate(metrics) if metric.pushed]
        sides = [(i, on_canary) for i, _ in self._pushed_metrics for on_canary in (False, True)]
        self._unsaid = {side: _Unsaid(count) for side in sides}
        self._phases = {
            side: phase * metrics[side[0]].every
            for side, phase in zip(sides, self._rng.random(len(sides)).tolist(), strict=True)
        }
        self._clock = _Clock()
        self._pushed = Pushed(self._clock, born="0")

    def settle(self, shares: Mapping[str, tuple[str, float]]) -> None:
        """Give every user the version that the shares say, by segment, with its name in statistics."""
        for side in self._unsaid:
            self._visited(side)
        for at, name in enumerate(self._segments):
            self._labels[name], share = shares[name]
            mine = np.flatnonzero(self._segment == at)
            canary = self._regulars.buckets[mine] < share
            for on_canary, users in ((True, mine[canary]), (False, mine[~canary])):
                self._groups[name, on_canary] = _Group(users, self._regulars.habits[users].cumsum())

    def leanings(self, places: Iterable[Place]) -> Floats:
        """Return for places how often their users buy, beside the mean of all."""
        groups = (self._groups[place] for place in places)
        return np.array([group.upto[-1] / len(group.users) if len(group.users) else 1.0 for group in groups])

    def visit(self, metric: int, amount: float | None, counted: Mapping[Place, tuple[int, int]]) -> None:
        """Take in the requests of an interval and how many of them are events of a pushed metric."""
        for (segment, on_canary), (requests, events) in counted.items():
            group, unsaid = self._groups[segment, on_canary], self._unsaid[metric, on_canary]
            if not len(group.users):
                continue
            unsaid.visits[segment] = unsaid.visits.get(segment, 0) + requests
            if not events:
                continue
            buyers = group.buying(events, self._rng)
            unsaid.came[buyers] = True
            if amount is None:
                unsaid.came_to[buyers] = 1.0
            else:
                worth = self._rng.lognormal(np.log(amount) - SPREAD**2 / 2, SPREAD, events)
                np.add.at(unsaid.came_to, buyers, worth)

    def _visited(self, side: tuple[int, bool]) -> None:
        """Say who came: each request is of any user of its segment and version."""
        unsaid = self._unsaid[side]
        for segment, visits in unsaid.visits.items():
            users = self._groups[segment, side[1]].users
            unsaid.came[users[self._rng.random(len(users)) < -np.expm1(-visits / len(users))]] = True
        unsaid.visits.clear()

    def arrive(self, versions: tuple[str, str], begin: float, end: float, era: str) -> Iterator[Measure]:
        """Yield what an interval adds to pushed metrics.

        Args:
            versions: The stable one and the canary.
            begin: Of the interval, in seconds.
            end: The same.
            era: Within which a user counts once.
        """
        for i, metric in self._pushed_metrics:
            for on_canary, version in enumerate(versions):
                last = end - (end - self._phases[i, bool(on_canary)]) % metric.every
                if last > begin:
                    self._clock.now = last
                    self._push(metric, (i, bool(on_canary)), version)
        self._clock.now = end
        # What came in the interval in which versions changed is dropped, as the server does.
        self._pushed.begin(SERVICE, era)
        yield from self._pushed.take().get(SERVICE, ())
        self._pushed.commit()

    def _push(self, metric: Business, side: tuple[int, bool], version: str) -> None:
        self._visited(side)
        unsaid = self._unsaid[side]
        for at, name in enumerate(self._segments):
            users = np.flatnonzero(unsaid.came & (self._segment == at))
            if len(users):
                place = (SERVICE, metric.name, cell(self._labels[name], version))
                self._pushed.receive(
                    place, named(users, unsaid.came_to), "", summed=metric.amount is not None
                )
        self._unsaid[side] = _Unsaid(len(unsaid.came))
