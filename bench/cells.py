"""The kinds of releases that the decision rule is measured on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any

from bench.rivals import RIVALS, rival
from controlplane.policy.loading import load
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.pinning import pin
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import Ended, Eve, eve, release
from controlplane.simulation.traffic import Model

SEED = 500_000
OURS, ADVANCE, FAST = "Turnout", "Turnout, when_unsure: advance", "Turnout, fast"
UNSURE = 1200.0  # seconds of a step after which ADVANCE goes on
LADDERS = {"1%": (1, 5, 10, 25, 50), "5%": (5, 10, 25, 50)}


@cache
def policy(rule: str, first: str) -> PinnedPolicy:
    """Return the standard ladder.

    A step takes a minute at least, that at half of the users five, with what propagation and verification
    take: 20 s, and at 1 % of 100 requests per second a minute.
    """
    least, soak = ("10s", "40s") if rule == FAST else ("35s", "4m40s")
    waits = {1: "0s", 50: soak}
    steps = [f"{{name: s{p}, everyone: {p}%, for: {waits.get(p, least)}}}" for p in LADDERS[first]]
    text = f"kind: Policy\nname: standard\nsteps: [{', '.join(steps)}, {{name: all, everyone: 100%}}]\n"
    text += "conditions: []\nguard: {for: 30s, hold_back: 2%}\n"
    if rule == ADVANCE:
        text += f"when_unsure: {{after: {UNSURE:.0f}s, do: advance}}\n"
    loaded = load({"standard.yaml": text.encode()})
    assert not loaded.errors, loaded.errors
    return pin(loaded.catalog.policies()[0], loaded.catalog)


@dataclass(frozen=True)
class Cell:
    """One kind of release under one rule."""

    fault: str
    noise: str = "mod"
    first: str = "1%"
    interval: float = 5.0
    proxies: int = 3
    errors: float = 0.005
    rps: float = 100.0
    rule: str = OURS
    client_errors: float = 0.0

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong."""
        return tuple(Fault.parse(part) for part in self.fault.split("+"))

    @property
    def bad(self) -> bool:
        """Whether the release should be rolled back."""
        return any(fault.bad for fault in self.faults)

    @property
    def strict(self) -> Cell | None:
        """The same without ``when_unsure``, if that is all that differs."""
        return replace(self, rule=OURS) if self.rule == ADVANCE else None

    @property
    def begins(self) -> float:
        """Second at which the fault begins for which it should be."""
        return min((fault.begins for fault in self.faults if fault.bad), default=0.0)

    @property
    def model(self) -> Model:
        """The service."""
        # One of ten requests is of a group that the policy does not know: a fault may hit it alone.
        proxies = (0.4, 0.35, 0.25) if self.proxies == 3 else (1.0,) * self.proxies
        history = 1800.0 if self.interval >= 5 else 600.0
        return Model(
            rps=self.rps, errors=self.errors, noise=self.noise, proxies=proxies, segments={"some": 0.1},
            interval=self.interval, history=history, client_errors=self.client_errors,
        )  # fmt: skip

    def run(self, seed: int) -> Ended:
        """Run one release."""
        if self.rule in RIVALS:
            shares = [p / 100 for p in LADDERS[self.first]]
            return rival(self.rule, shares, self.model, self.faults, seed)
        # Any fault, ladder and rule has the same past.
        same = replace(self, fault="none", first="1%", rule=OURS)
        return release(policy(self.rule, self.first), self.model, self.faults, _eve(same, seed))

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        usual = Cell(self.fault)
        more = [f"{self.noise:9s}", f"from {self.first}"]
        more += [f"{self.interval:g} s"] if self.interval != usual.interval else []
        more += [f"{self.proxies} proxy"] if self.proxies != usual.proxies else []
        more += [f"{self.rps:g}/s"] if self.rps != usual.rps else []
        more += [f"{100 * self.client_errors:g} % 4xx"] if self.client_errors else []
        return f"{self.rule:30s} {self.fault:22s} {' '.join(more)}"


@lru_cache(maxsize=1000)
def _eve(cell: Cell, seed: int) -> Eve:
    return eve(cell.model, seed)
