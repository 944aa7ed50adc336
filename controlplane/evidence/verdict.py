"""What the evidence says about one metric of a release, with the numbers that say so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The three answers. Too little, stale or absurd data is NOT_YET, never PASS."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    NOT_YET = "not yet"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One metric's answer.

    Attributes:
        metric: Its name, as in ``errors`` or ``latency p99``.
        segment: Where it shows: a segment that is worse alone, else ``everyone``.
        outcome: The answer.
        reason: One line for operators, with figures.
        brief: The same without figures, but for what a PASS still needs; '' if that is the same.
        cause: What keeps it from passing, in a word that stays the same while that does.
        note: What else is to be known of what it was compared with; the same for many metrics.
        numbers: Pairs of name and figure that the answer rests on; rates in 0..1, evidence as natural
            logarithms except for ``e_value`` and its ``threshold``.
        requests_needed: Canary requests that a PASS still needs if nothing changes; 0 with a PASS, None if
            more requests alone will not do.
        decisive: Whether it counts: what a policy only observes is shown and decides nothing.
        seconds_needed: How long those take at the present traffic; None if that cannot be said.
        lacking: Whether it is data that lacks: none comes, it is old, a source fails or does not report, or
            nothing is there to compare with. Time does not make up for that.
        doubtful: Whether what was seen speaks against the canary, if not beyond doubt: a fault is suspected,
            or a limit is not kept. Then it is not the number of requests that a PASS lacks.
    """

    metric: str
    segment: str
    outcome: Outcome
    reason: str
    numbers: tuple[tuple[str, float], ...] = ()
    requests_needed: int | None = None
    seconds_needed: float | None = None
    decisive: bool = True
    lacking: bool = False
    doubtful: bool = False
    brief: str = ""
    cause: str = ""
    note: str = ""

    @property
    def told(self) -> str:
        """The reason with its note, by itself."""
        return f"{self.reason}; {self.note}" if self.note else self.reason

    def loudness(self) -> float:
        """Return its e-value as a part of its threshold; 0 without one."""
        numbers = dict(self.numbers)
        return numbers.get("e_value", 0.0) / numbers["threshold"] if numbers.get("threshold") else 0.0

    def named(self, said: str) -> str:
        """Return what it says with its name, for where it stands among others."""
        return said if said.startswith(self.metric) else f"{self.metric}: {said}"
