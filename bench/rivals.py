"""The rules of other tools, from their source as docs/decision-rule.md describes them, on the same traffic.

None of them looks at a concurrent baseline except Kayenta's; each gives one vote per check, whatever the
number of requests. They run without scrape lag, which favours them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal

import numpy as np

from controlplane.evidence.observation import Observation, Tally
from controlplane.policy.latency import EDGES_MS
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import Ended
from controlplane.simulation.traffic import CANARY, STABLE, Harm, Model, Traffic

Vote = Literal["pass", "fail", "advance", "back"]
P99_MS = EDGES_MS.index(500)


@dataclass
class Minutes:
    """What was seen since the last check, of both versions."""

    canary: Tally = field(default_factory=Tally)
    baseline: Tally = field(default_factory=Tally)

    def add(self, observation: Observation) -> None:
        """Take in an interval."""
        for cell, tally in observation.cells:
            if cell.version == CANARY:
                self.canary += tally
            elif cell.version == STABLE:
                self.baseline += tally


def healthy(seen: Tally, success: float, slow: int | None) -> bool:
    """An absolute range on the canary alone; no data is a failed check."""
    if not seen.requests:
        return False
    good = seen.errors <= (1 - success) * seen.requests
    return good and (slow is None or seen.slower[slow] <= 0.01 * seen.requests)


@dataclass
class Flagger:
    """Flagger: checks of a minute; failures add up, and the next check after the last one rolls back."""

    threshold: int
    every: float = 60.0
    failed: int = 0

    def check(self, seen: Minutes, in_step: float) -> Vote:
        """Vote on what was seen since the last check, ``in_step`` seconds into the step."""
        _ = in_step
        if self.failed >= self.threshold:
            return "back"
        if healthy(seen.canary, 0.99, P99_MS):
            return "advance"
        self.failed += 1
        return "fail"


@dataclass
class Argo:
    """Argo Rollouts: an analysis beside pauses of five minutes; more failures than the limit end it."""

    every: float
    success: float
    slow: int | None
    limit: int = 3
    pause: float = 300.0
    failed: int = 0

    def check(self, seen: Minutes, in_step: float) -> Vote:
        """Vote on what was seen since the last check, ``in_step`` seconds into the step."""
        if seen.canary.requests and not healthy(seen.canary, self.success, self.slow):
            self.failed += 1
        if self.failed > self.limit:
            return "back"
        return "advance" if in_step >= self.pause else "pass"


@dataclass
class Kayenta:
    """Kayenta: after ten minutes per step, Mann-Whitney on the minutes of three metrics, then a score."""

    every: float = 60.0
    step: float = 600.0
    points: list[tuple[list[float], list[float]]] = field(default_factory=list)

    def check(self, seen: Minutes, in_step: float) -> Vote:
        """Vote on what was seen since the last check, ``in_step`` seconds into the step."""
        self.points.append((self._metrics(seen.baseline), self._metrics(seen.canary)))
        if in_step < self.step:
            return "pass"
        old, new = (np.array([pair[i] for pair in self.points]) for i in (0, 1))
        self.points = []
        passed = sum(not self._high(old[:, i], new[:, i]) for i in range(3))
        return "advance" if 100 * passed / 3 >= 95 else "back"

    @staticmethod
    def _metrics(seen: Tally) -> list[float]:
        n = max(seen.requests, 1)
        return [seen.errors / n, quantile(seen, 0.5), quantile(seen, 0.99)]

    @staticmethod
    def _high(old: np.ndarray, new: np.ndarray) -> bool:
        """Whether the 98 % interval of the shift lies above a quarter of the Hodges-Lehmann shift."""
        shifts = np.sort((new[:, None] - old[None, :]).ravel())
        n, m = len(new), len(old)
        cut = max(0, int(n * m / 2 - 2.326 * sqrt(n * m * (n + m + 1) / 12)))
        middle = float(np.median(shifts))
        worse = new.mean() >= old.mean() if old.mean() == 0 else new.mean() / old.mean() >= 1.0
        return bool(shifts[cut] > 0.25 * abs(middle) and worse and middle != 0)


def quantile(seen: Tally, part: float) -> float:
    """Return a quantile of the latency, linear between edges."""
    beyond, left = (1 - part) * seen.requests, 0.0
    above = float(seen.requests)
    for edge, slower in zip(EDGES_MS, seen.slower, strict=True):
        if slower <= beyond:
            return left + (edge - left) * (above - beyond) / max(above - slower, 1e-9)
        left, above = float(edge), float(slower)
    return left


RIVALS: Mapping[str, Callable[[], Flagger | Argo | Kayenta]] = {
    "Flagger, threshold 5": lambda: Flagger(5),
    "Flagger, threshold 10": lambda: Flagger(10),
    "Argo, docs (5m, .95, limit 3)": lambda: Argo(300.0, 0.95, None),
    "Argo, 1m, .99, limit 3": lambda: Argo(60.0, 0.99, P99_MS),
    "Kayenta, 10-min steps": Kayenta,
}


def rival(name: str, shares: Sequence[float], model: Model, faults: tuple[Fault, ...], seed: int) -> Ended:
    """Run one release under another tool's rule."""
    # None of them learns from the time before.
    traffic, rule = Traffic(replace(model, history=0), faults, seed), RIVALS[name]()
    step, begun, due, seen, failed, slow = 0, 0.0, rule.every, Minutes(), 0.0, 0.0
    while traffic.second < model.longest:
        observation, harm = traffic.step({"everyone": ("everyone", shares[step])})
        failed, slow = failed + harm.failed, slow + harm.slow
        seen.add(observation)
        if traffic.second < due:
            continue
        due += rule.every
        vote = rule.check(seen, traffic.second - begun)
        seen = Minutes()
        harmed = Harm(failed, slow)
        if vote == "back":
            return Ended("rolled back", traffic.second, None, harmed, str(step), name, "")
        if vote == "advance":
            step, begun = step + 1, traffic.second
            if step == len(shares):
                return Ended("promoted", traffic.second, traffic.second, harmed, str(step), name, "")
    return Ended("undecided", traffic.second, None, Harm(failed, slow), str(step), name, "")
