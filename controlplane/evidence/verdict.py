"""What the evidence says about one metric of a release, with the numbers that say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from controlplane.evidence.once import once


class Outcome(StrEnum):
    """The three answers. Too little, stale or absurd data is NOT_YET, never PASS."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    NOT_YET = "not yet"


Numbers = tuple[tuple[str, float], ...]  # pairs of name and figure


@dataclass(frozen=True, slots=True)
class Said:
    """What a verdict tells people.

    Attributes:
        reason: One line for operators, with figures.
        numbers: What the answer rests on; rates in 0..1, evidence as natural logarithms except for
            ``e_value`` and its ``threshold``.
        requests_needed: Canary requests that a PASS still needs if nothing changes; 0 with a PASS, None if
            more requests alone will not do.
        seconds_needed: How long those take at the present traffic; None if that cannot be said.
        brief: The reason without figures, but for what a PASS still needs; '' if that is the same.
        note: What else is to be known of what it was compared with; the same for many metrics.
        wanted: How the requests that are needed are told of.
    """

    reason: str
    numbers: Numbers = ()
    requests_needed: int | None = None
    seconds_needed: float | None = None
    brief: str = ""
    note: str = ""
    wanted: str = "more"

    def adding(self, more: str, seconds: float | None = None) -> Said:
        """Return the same with more words, and with the time that it takes if that is given."""
        brief = f"{self.brief}{more}" if self.brief else ""
        needed = self.seconds_needed if seconds is None else seconds
        return replace(self, reason=f"{self.reason}{more}", brief=brief, seconds_needed=needed)


@dataclass(frozen=True, eq=False)  # no slots: what it says is worked out once, where somebody reads it
class Verdict:
    """One metric's answer.

    Attributes:
        metric: Its name, as in ``errors`` or ``latency p99``.
        segment: Where it shows: a segment that is worse alone, else ``everyone``.
        outcome: The answer.
        say: What it tells people, or how that is found.
        fault: e-value of a fault, or how that is found; None if there is none.
        threshold: e-value at which it fails, at least 100.
        decisive: Whether it counts: what a policy only observes is shown and decides nothing.
        lacking: Whether it is data that lacks: none comes, it is old, a source fails or does not report, or
            nothing is there to compare with. Time does not make up for that.
        doubtful: Whether what was seen speaks against the canary, if not beyond doubt: a fault is suspected,
            or a limit is not kept. Then it is not the number of requests that a PASS lacks.
        overdue: Whether data lacks that should have come: nothing came for too long, or its source fails.
            That does not pass by itself.
        cause: What keeps it from passing, in a word that stays the same while that does.
        baseline: What is wrong with the baseline itself, so that comparing tells nothing; '' if nothing is.
        quiet: Whether the e-value is known to be 1 at most, so that it need not be found.
    """

    metric: str
    segment: str
    outcome: Outcome
    say: Said | Callable[[], Said]
    fault: float | Callable[[], float] | None = None
    threshold: float | None = None
    decisive: bool = True
    lacking: bool = False
    doubtful: bool = False
    cause: str = ""
    overdue: bool = False
    baseline: str = ""
    quiet: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and self._plain == other._plain

    def __hash__(self) -> int:
        return hash((self.metric, self.segment, self.outcome))

    @property
    def _plain(self) -> tuple[object, ...]:
        decided = (self.decisive, self.lacking, self.doubtful, self.cause, self.overdue, self.baseline)
        return (self.metric, self.segment, self.outcome, self.said, self.e_value, self.threshold, *decided)

    @once
    def said(self) -> Said:
        """What it tells people."""
        return self.say if isinstance(self.say, Said) else self.say()

    @once
    def e_value(self) -> float | None:
        """Of a fault; None if there is none."""
        return self.fault() if callable(self.fault) else self.fault

    @property
    def reason(self) -> str:
        """One line for operators, with figures; this and what follows as in :class:`Said`."""
        return self.said.reason

    @property
    def numbers(self) -> Numbers:
        """What the answer rests on."""
        return self.said.numbers

    @property
    def requests_needed(self) -> int | None:
        """Canary requests that a PASS still needs."""
        return self.said.requests_needed

    @property
    def seconds_needed(self) -> float | None:
        """How long those take."""
        return self.said.seconds_needed

    @property
    def brief(self) -> str:
        """The reason without figures."""
        return self.said.brief

    @property
    def note(self) -> str:
        """What else is to be known."""
        return self.said.note

    @property
    def told(self) -> str:
        """The reason with its note, by itself."""
        return f"{self.reason}; {self.note}" if self.note else self.reason

    @property
    def loudness(self) -> float:
        """Its e-value as a part of its threshold; 0 without one."""
        return (self.e_value or 0.0) / self.threshold if self.threshold else 0.0

    def saying(self, say: Callable[[], Said]) -> Verdict:
        """Return the same answer in other words."""
        evidence, kind = (self.fault, self.threshold), (self.decisive, self.lacking, self.doubtful)
        why = self.cause, self.overdue
        answer = (self.metric, self.segment, self.outcome)
        return Verdict(*answer, say, *evidence, *kind, *why, self.baseline, self.quiet)

    def named(self, said: str) -> str:
        """Return what it says with its name, for where it stands among others."""
        return said if said.startswith(self.metric) else f"{self.metric}: {said}"
