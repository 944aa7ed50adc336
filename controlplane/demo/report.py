"""The demo's last line: one object for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from controlplane.demo.load import LoadCounts

Outcome = Literal["promoted", "rolled_back", "undecided"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why it ended so, from the deciding record; a part that does not apply is empty."""

    metric: str = ""
    segment: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when the demo ends.

    Attributes:
        outcome: How the release ended; ``undecided`` if it did not.
        reason: Metric, segment and rule of the deciding record; for ``undecided`` what it waits for.
        started: When the release started.
        ended: When it ended, or the demo gave up.
        harmed: When both the fault was there and the canary had its first request; None if never both.
        decided: When the rollback was decided; None without one.
        load: The load's own counts.
        moved_back: Users who lost the canary before any rollback.
        proxies: How many Envoys took part.
        envoy_version: Of these.
        steps: Names of the steps that the release entered, in order.
    """

    outcome: Outcome
    reason: Reason
    started: datetime
    ended: datetime
    harmed: datetime | None
    decided: datetime | None
    load: LoadCounts
    moved_back: int
    proxies: int
    envoy_version: str
    steps: tuple[str, ...]


def report(facts: Facts) -> dict[str, object]:
    """Return the object of the last line; times in seconds, ``detect_seconds`` None without a rollback."""
    reason: Mapping[str, str] = {
        "metric": facts.reason.metric,
        "segment": facts.reason.segment,
        "rule": facts.reason.rule,
    }
    detect = None
    if facts.decided and facts.outcome == "rolled_back":
        detect = round((facts.decided - (facts.harmed or facts.started)).total_seconds(), 3)
    return {
        "outcome": facts.outcome,
        "reason": reason,
        "seconds": round((facts.ended - facts.started).total_seconds(), 3),
        "detect_seconds": detect,
        "requests": facts.load.requests,
        "failed_requests": facts.load.failed,
        "unexplained_failures": facts.load.unexplained,
        "canary_requests": facts.load.canary,
        "users": facts.load.users,
        "users_moved_back": facts.moved_back,
        "proxies": facts.proxies,
        "envoy_version": facts.envoy_version,
        "steps": list(facts.steps),
    }


def last_line(facts: Facts) -> str:
    """Return the report as one line of JSON."""
    return json.dumps(report(facts), ensure_ascii=False)
