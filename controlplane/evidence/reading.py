"""How an account is read: one order of questions for all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, inf, log, log2, sqrt
from operator import itemgetter

from controlplane.evidence.account import (
    ENOUGH,
    FULL_MARGIN,
    NO_COUNTS,
    RECENT_HALF_LIFE,
    Account,
    Counts,
    Stage,
    plus,
)
from controlplane.evidence.once import once
from controlplane.evidence.verdict import Numbers, Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE

GONE = 1e-6 * RECENT_HALF_LIFE / log(2)  # requests of late that are as good as none
LONG = 10.0  # usual gaps between requests: after a longer one none come any more
FEW = 10.0  # requests of late, from which no rate can be told
MIXED = 120.0  # seconds of a step in which requests of late are partly those of the one before
LOG_DOUBT = log(10.0)  # evidence from which on nothing passes any more

MORE, LIKE = "more", "more like the baseline's"  # what of requests is wanted
DOUBT = ""  # as the reason of a hold: what speaks against the canary, in the metric's words

Hold = tuple[bool, str]  # whether it applies, and why nothing passes while it does


@dataclass(frozen=True, eq=False)  # no slots: what is asked several times is worked out once
class Reading:
    """An account with its evidence of a fault.

    Attributes:
        account: What was gathered.
        log_fault: How the logarithm of the evidence of a fault is found: it is a mean of the processes, or
            less.
        threshold: e-value at which the metric fails.
        shows: By segment: how much of the fault shows there, or how that is found.
        undoubted: Evidence of no harm that a PASS takes when every event of a burst counts.
        borrowing: Segments whose baseline is that of the others, see :func:`once_each`.
    """

    account: Account
    log_fault: Callable[[], float]
    threshold: float
    shows: Mapping[str, float] | Callable[[], Mapping[str, float]]
    undoubted: float = 0.0
    borrowing: frozenset[str] = frozenset()

    @once
    def quiet(self) -> bool:
        """Whether nothing of a fault is in any process: a mean of them is not more then, and not needed."""
        return max(map(max, self.account.processes.values()), default=0.0) <= 0

    @once
    def log_e(self) -> float:
        """Logarithm of the evidence of a fault."""
        return self.log_fault()

    @once
    def doubted(self) -> bool:
        """Whether the evidence suffices to keep it from passing."""
        return not self.quiet and self.log_e >= LOG_DOUBT

    @once
    def failed(self) -> bool:
        """Whether the evidence suffices to roll back."""
        return not self.quiet and self.log_e >= log(self.threshold)

    @once
    def segment(self) -> str:
        """Where a fault shows; everyone while there is none."""
        if not self.failed:
            return EVERYONE
        return blame(self.account.recent, self.shows() if callable(self.shows) else self.shows)

    @property
    def table(self) -> Mapping[str, Counts]:
        """What the answer rests on, by segment: for a fault what has shown it, else this step."""
        if not self.failed:
            return self.account.step
        return self._blamed(self.account.rise if self.risen else self.account.whole)

    @property
    def risen(self) -> bool:
        """Whether a fault is shown by what came since the evidence began to rise."""
        return self.failed and total(self._blamed(self.account.rise))[0] > 0

    def _blamed(self, table: Mapping[str, Counts]) -> Mapping[str, Counts]:
        """Return the part of a table that is of the segment where a fault shows."""
        if self.segment == EVERYONE:
            return table
        return {self.segment: table[self.segment]} if self.segment in table else {}

    @once
    def counts(self) -> Counts:
        """The sum of what the answer rests on."""
        return once_each(self.table, self.borrowing)

    @property
    def release(self) -> Counts:
        """The sum since the release began, of the segment where a fault shows."""
        return once_each(self._blamed(self.account.whole), self.borrowing)

    def told(self, say: Callable[[Counts], str], *, beside: bool = True) -> str:
        """Return what was seen, in words; of a fault since it shows, and beside it in the whole release.

        ``beside`` is False where both do not count the same.
        """
        if not self.risen or self.counts[0] >= self.release[0]:
            return say(self.counts)
        late = f"in the last {rough(self.account.rising)} {say(self.counts)}"
        return f"{late}; in the whole release {say(self.release)}" if beside else late

    def e_value(self) -> float:
        """Return the evidence of a fault."""
        return exp(min(self.log_e, 690.0))

    def numbers(self, event: str) -> Numbers:
        """Return the figures; ``event`` names what is counted."""
        found = (
            *_figures(self.counts, event),
            ("e_value", self.e_value()),
            ("threshold", self.threshold),
            ("promotion", self.account.promotion),
            ("needed", ENOUGH),
        )
        if not self.risen:
            return found
        beside = _figures(self.release, event, "release_")
        return (*found, ("seconds", self.account.rising), *beside)

    def answer(
        self,
        metric: str,
        words: Callable[[], Words],
        holds: Iterable[Hold],
        needed: Callable[[], float | None],
        event: str,
    ) -> Verdict:
        """Return a fault, else that there is no data, else the first hold that applies, else what is enough.

        Args:
            metric: Its name.
            words: For the reason.
            holds: What keeps it from passing, in order.
            needed: Requests that a PASS takes, or None.
            event: Names what is counted.
        """
        applying = [(at, why) for at, (applies, why) in enumerate(((self.doubted, DOUBT), *holds)) if applies]
        held, why = applying[0] if applying else (None, DOUBT)
        requests, enough = self.counts[0], self.account.promotion >= ENOUGH
        outcome, cause = Outcome.NOT_YET, "short"
        if self.failed:
            outcome, cause = Outcome.FAIL, "fault"
        elif not requests:
            cause = "no requests"
        elif held is not None:
            cause = f"held {held}"  # which of them it is; the words of some have figures
        elif enough and self.account.plain < self.undoubted:
            cause = "bursts"
        elif enough:
            outcome, cause = Outcome.PASS, ""
        # Doubt is about the canary; whatever else holds is about what it is judged by.
        open_, doubtful = outcome is Outcome.NOT_YET, held is not None and why == DOUBT
        return Verdict(
            metric,
            self.segment,
            outcome,
            lambda: self._said(cause, why, words(), needed, event),
            self.e_value,
            self.threshold,
            lacking=open_ and (not requests or (held is not None and not doubtful)),
            doubtful=open_ and doubtful,
            cause=cause,
            quiet=self.quiet,
        )

    def _said(
        self, cause: str, held: str, words: Words, needed: Callable[[], float | None], event: str
    ) -> Said:
        """Return what an answer tells people, by its cause."""
        told = {
            "": words.good,
            "bursts": words.bursts,
            "fault": words.fault,
            "no requests": "no canary requests in this step",
            "short": words.short,
        }
        why, more = told.get(cause, held or words.doubt), 0 if not cause else None
        if cause in ("no requests", "short") and (takes := needed()) is not None:
            more = ceil(takes)
        if not self.counts[0]:
            return Said(why, self.numbers(event), more, brief=why)
        reason = f"{why}: {words.seen}"
        return Said(reason, self.numbers(event), more, brief=why, note=words.note, wanted=words.wanted)


@dataclass(frozen=True, slots=True)
class Words:
    """What a metric says in each case, what was seen, and a note on what that was compared with.

    ``wanted`` is what of the canary's requests a PASS takes: LIKE where those so far speak against it.
    """

    fault: str
    doubt: str
    good: str
    short: str
    seen: str
    note: str = ""
    bursts: str = "too many at once to exclude harm"
    wanted: str = MORE


def _figures(counts: Counts, event: str, prefix: str = "") -> tuple[tuple[str, float], ...]:
    n_c, k_c, n_b, k_b = counts
    return (
        (f"{prefix}canary_requests", n_c),
        (f"{prefix}canary_{event}", k_c),
        (f"{prefix}canary_rate", k_c / n_c if n_c else 0.0),
        (f"{prefix}baseline_requests", n_b),
        (f"{prefix}baseline_{event}", k_b),
        (f"{prefix}baseline_rate", k_b / n_b if n_b else 0.0),
    )


def total(table: Mapping[str, Counts]) -> Counts:
    """Return the sum of counts over segments."""
    if len(table) == 1:
        return next(iter(table.values()))
    out = NO_COUNTS
    for segment in sorted(table):
        out = plus(out, table[segment])
    return out


def once_each(table: Mapping[str, Counts], borrowing: frozenset[str]) -> Counts:
    """Return the sum of counts over segments, in which each request of the baseline is one.

    Those that are ``borrowing`` have the baseline of the others, which counts where it belongs; where that is
    not in the table, as beside one segment that is blamed, it counts once.
    """
    if not borrowing or not (lent := borrowing & table.keys()):
        return total(table)
    n_c, k_c, _, _ = total(table)
    own = total({segment: counts for segment, counts in table.items() if segment not in lent})
    _, _, n_b, k_b = own if own[2] else max((table[segment] for segment in sorted(lent)), key=itemgetter(2))
    return n_c, k_c, n_b, k_b


def timed(verdict: Verdict, account: Account) -> Verdict:
    """Return the verdict with the time that a PASS still needs at the present traffic."""
    if verdict.outcome is not Outcome.NOT_YET or not total(account.step)[0]:
        return verdict  # without requests it says so
    if not _gone(account):
        return verdict.saying(lambda: _at_this_traffic(verdict.said, account))
    said = verdict.said
    if not said.requests_needed or said.seconds_needed is not None:
        return verdict
    none = said.adding(f"; {said.requests_needed} {said.wanted} are needed, and none come")
    return replace(verdict, say=none, lacking=True)


def _at_this_traffic(said: Said, account: Account) -> Said:
    more = said.requests_needed
    if not more or said.seconds_needed is not None:
        return said
    requests, took = traffic(account)
    seconds = more * took / requests
    return said.adding(f"; about {more} {said.wanted} are needed, {rough(seconds)} at this traffic", seconds)


def _gone(account: Account) -> bool:
    """Return whether requests have stopped, against what is usual in the step."""
    recent = total(account.recent)[0]
    silence = RECENT_HALF_LIFE * -log2(recent) if recent else inf  # at least so long
    return recent < GONE and silence > LONG * account.stepping / total(account.step)[0]


def traffic(account: Account) -> tuple[float, float]:
    """Return requests of the canary and the seconds in which they came: of late, if that tells a rate.

    Else those of the whole step: where few come, and at its begin, when late was another share.
    """
    recent = total(account.recent)[0]
    if account.stepping and (account.stepping < MIXED or recent < FEW):
        return total(account.step)[0], account.stepping
    return recent, account.lately


def rested(verdict: Verdict, doubted: bool, stage: Stage) -> Verdict:
    """Return the verdict of a comparison; where nobody is left on the baseline it asks for no more.

    What spoke against the canary before stands.
    """
    if EVERYONE not in stage.full_segments or verdict.outcome is Outcome.FAIL or doubted:
        return verdict
    reason = f"{verdict.metric}: nobody is left on the baseline, so it is not compared any more"

    def said() -> Said:
        return Said(reason, verdict.said.numbers, 0)

    return replace(verdict, outcome=Outcome.PASS, say=said, lacking=False, cause="", overdue=False)


def rough(seconds: float) -> str:
    """Return a time for reading, in one unit."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, ceil(seconds))} s"


def borrowed(table: Mapping[str, Counts], stage: Stage, margin: float | None = None) -> str:
    """Say for which of the counted segments there is no baseline of their own, or ''.

    Args:
        table: Counts by segment.
        stage: Knows the segments with a share of 100 %.
        margin: What is tolerated against the rest of the service; None if only a limit judges.
    """
    whole = sorted(s for s, counts in table.items() if s in stage.full_segments and counts[0])
    if not whole:
        return ""
    names = without_own(whole)
    if margin is None:
        rest = "nobody is left on the baseline" if EVERYONE in whole else "beside it the rest of the service"
        return f"{names}: judged by the limit, {rest}"
    if EVERYONE in whole:
        return "nobody is left on the baseline"
    return f"{names}: compared with the rest of the service, margin {max(margin, FULL_MARGIN):.0%}"


def without_own(whole: Sequence[str]) -> str:
    """Say of whole segments that they have no baseline of their own."""
    if len(whole) == 1:
        return f"segment {whole[0]} has no baseline of its own"
    return f"segments {', '.join(whole)} have no baseline of their own"


# What nothing concurrent shows fails no comparison, however much it is; time does not help either.
HELPLESS = "and nothing is left to compare with: this alone takes nothing back, `turnout rollback` does"


def alone(stage: Stage) -> bool:
    """Return whether nobody is left on the baseline, so that only what is usual says what is much."""
    return EVERYONE in stage.full_segments


def above_usual(counts: Counts, usual: float) -> bool:
    """Return whether the canary has more than a usual share, by more than a deviation; for words only."""
    n_c, k_c, _, _ = counts
    return k_c - usual * n_c > sqrt(k_c)


def blame(recent: Mapping[str, Counts], loudness: Mapping[str, float]) -> str:
    """Name the segment where a fault shows, or ``everyone`` if it shows in the others too.

    A fault is one segment's when the others show less than a quarter of what a general fault would.

    Args:
        recent: Counts by segment.
        loudness: Evidence of a fault by segment.
    """
    active = sorted(s for s, counts in recent.items() if counts[0] > 0 and s in loudness)
    if not active:
        return EVERYONE
    loudest = max(active, key=lambda s: loudness[s])
    excess = _excess(recent[loudest]) / max(recent[loudest][0], 1e-9)
    others = [recent[s] for s in active if s != loudest]
    expected = excess * sum(counts[0] for counts in others)
    shown = sum(map(_excess, others))
    return EVERYONE if others and expected > 0 and shown > expected / 4 else loudest


def _excess(counts: Counts) -> float:
    n_c, k_c, n_b, k_b = counts
    return k_c - n_c * k_b / n_b if n_b else k_c


def average(counts: Counts) -> str:
    """Return how many events one request of the canary has, where it may have several, for reading."""
    return f"canary {counts[1] / counts[0]:.4g} on average of {counts[0]:.0f}" if counts[0] else "none"


def bound(limit: float, share: bool) -> str:
    """Return a limit for reading, of a share in percent."""
    return percent(limit, 1) if share else f"{limit:.4g}"


def more_often(counts: Counts, times: float) -> bool:
    """Return whether the canary has more than ``times`` the baseline's share, by more than a deviation.

    It is for words only: what the counts point to while they prove nothing. That the baseline has none does
    not say that it never has any.
    """
    n_c, k_c, n_b, k_b = counts
    if not n_b:
        return False
    scale = times * n_c / n_b
    return k_c - scale * k_b > sqrt(k_c + scale * scale * max(k_b, 1))


def percent(events: float, requests: float) -> str:
    """Return a share for reading, ``'2.31 %'``."""
    return f"{100 * events / requests:.3g} %" if requests else "none"
