"""What the demo shows: one value, filled from the control plane and the load a few times a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controlplane.demo.load import LoadCounts

Mark = Literal["done", "now", "todo", "failed"]
Verdict = Literal["pass", "fail", "not yet"]


@dataclass(frozen=True, slots=True)
class StepStatus:
    """One rung of the ladder: ``segment`` and ``share`` as the operator wrote them."""

    name: str
    segment: str
    share: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One proxy: shares of the canary among its requests in parts per million, requests and errors in all.

    Attributes:
        name: Node id.
        asked: The share in the newest configuration.
        acked: The share in the newest configuration that it acknowledged, None before the first.
        observed: The share that its own counters show since the step began, None without requests.
        requests: Requests that it counted.
        errors: Of these, failures.
        note: Anything wrong: ``silent``, ``rejected``, a reason; empty if all is well.
    """

    name: str
    asked: int
    acked: int | None
    observed: int | None
    requests: int = 0
    errors: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class ProofStatus:
    """What one metric says: its verdict, and how much of the evidence to advance is there, in 0..1."""

    metric: str
    verdict: Verdict
    proof: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DecisionStatus:
    """One decision: seconds since the release started, what was decided and why."""

    at: float
    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class DemoStatus:
    """All that is shown.

    Attributes:
        service: Its name.
        release: The release's name.
        from_: The version of the baseline.
        to: The version of the canary.
        phase: waiting, progressing, guarding, rolling back, promoted, rolled back, and so on.
        seconds: Since the release started.
        fault: As given on the command line.
        activity: What the release does now, in a few words: propagating, verifying, judging, why it holds.
        steps: The ladder, in order.
        proxies: Sorted by name.
        harm: The e-value of "the canary harms"; at ``harm_limit`` it is rolled back.
        harm_limit: That limit.
        proofs: One per metric.
        load: The load's counts.
        moved_back: Users who lost the canary while shares grew.
        decisions: The last few, oldest first.
        conclusion: Set at the end: a title, then lines of which each begins with one word for what it tells.
    """

    service: str
    release: str
    from_: str
    to: str
    phase: str
    seconds: float
    fault: str
    activity: str
    steps: tuple[StepStatus, ...]
    proxies: tuple[ProxyStatus, ...]
    harm: float
    harm_limit: float
    proofs: tuple[ProofStatus, ...]
    load: LoadCounts
    moved_back: int = 0
    decisions: tuple[DecisionStatus, ...] = ()
    conclusion: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """The number of the current step, from 1; the last one after all are done, 0 before the first."""
        reached = [n for n, step in enumerate(self.steps, 1) if step.mark != "todo"]
        return reached[-1] if reached else 0
