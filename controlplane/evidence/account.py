"""The state of one metric, alike for all metrics, and the setting in which it is folded and read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import log
from operator import add
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from controlplane.evidence.blocks import Blocks
from controlplane.evidence.learned import Learned
from controlplane.evidence.likelihood import FIRST_MASS, advance, restart_mass
from controlplane.evidence.observation import Observation
from controlplane.evidence.once import once
from controlplane.evidence.verdict import Verdict
from controlplane.policy.documents import EVERYONE

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")
Find: TypeAlias = "Callable[[Beside, Sequence[Key]], Sequence[Found]]"  # in each interval, for its key

ALPHA = 0.01  # chance of rolling back a good release
BETA = 0.05  # chance that a step passes which does the harm that it should exclude
ENOUGH = log(1 / BETA)
# Evidence of no harm is kept between these: a long good time must not outweigh a fault that begins later in
# the step, and an outage of both versions must not be paid for long after it.
LEAST, MOST = -2 * ENOUGH, ENOUGH + 4.0
LEAST_PLAIN = -4 * ENOUGH  # the same, where every error of a burst counts
RECENT_HALF_LIFE = 30.0  # seconds
PROOF = "proof "  # with this begins what of an account's state belongs to one step
FULL_MARGIN = 1.0  # at least this margin for a segment that borrows its baseline: other users, other habits


@dataclass(frozen=True, slots=True)
class Limits:
    """What a release is held to.

    Attributes:
        errors_margin: How much higher than the baseline's the error rate may be, as a ratio; None: not
            compared.
        client_errors_margin: The same for 4xx.
        latency_margin: How much slower than the baseline, as a ratio; None: not compared.
        latency: Pairs of quantile in 0..1 and position in EDGES_MS.
        success_rate: The least share of requests that are not errors, in 0..1.
        error_rate: The greatest share of requests that are errors, in 0..1.
        requests: Canary requests that a step must have judged.
        grace: By metric: the first time of a step, which does not count for it.
        added: Conditions beside these, ready-made.
        observed: What is shown and decides nothing.
        tests: What an A/B test gathers; see `better`.
        emergency: Whether it may replace a baseline that is broken: then the baseline's faults hold nothing.
        step: Name of the present step and what it alone is held to, or None.
        harm: Share of the service's requests that a step may spoil unseen; smaller is slower.
        warm_up: From the start of a release, while the canary may be up to three times as slow.
    """

    errors_margin: float | None = 0.25
    client_errors_margin: float | None = None
    latency_margin: float | None = None
    latency: tuple[tuple[float, int], ...] = ()
    success_rate: float | None = None
    error_rate: float | None = None
    requests: int | None = None
    grace: tuple[tuple[str, timedelta], ...] = ()
    added: tuple[Metric, ...] = ()
    observed: tuple[Metric, ...] = ()
    tests: tuple[Folded, ...] = ()
    emergency: bool = False
    step: tuple[str, Limits] | None = None
    harm: float = 0.0025
    warm_up: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a release stands in an interval.

    Attributes:
        canary: Version that is released.
        stable: Version of the baseline.
        limits: What it is held to.
        elapsed: Since the release's start, until the interval.
        next_share: Largest share of requests, in 0..1, that the canary gets when this step passes.
        counting: Whether the interval counts for promotion: wholly after the ACKs, complete data.
        full_segments: Segments with a share of 100 %, which have no baseline of their own.
        divided: Whether users of any segment are divided between both versions.
        judged: Time of judging in this step that counted, before the interval.
        since: Time before the interval since every proxy had this step; until then, since it was pushed.
    """

    canary: str
    stable: str
    limits: Limits
    elapsed: timedelta
    next_share: float
    counting: bool = True
    full_segments: frozenset[str] = frozenset()
    divided: bool = False
    judged: timedelta = timedelta(0)
    since: timedelta = timedelta(0)

    @property
    def borrowing(self) -> frozenset[str]:
        """Segments beside which the baseline of the others counts, as long as there is one."""
        return self.full_segments - {EVERYONE}

    def tolerated(self, rate: float, margin: float = 0.25) -> float:
        """Return the rise of a rate that promotion must exclude; exposure times rise is always alike.

        A policy that tolerates more against the baseline asks for less proof: three times its margin.
        """
        return max(self.limits.harm / max(self.next_share, 1e-4), 3 * margin * rate, 0.002)


Counts = tuple[float, float, float, float]  # canary requests, events, baseline requests, events
NO_COUNTS: Counts = (0, 0, 0, 0)
_NOTHING: Counts = (0.0, 0.0, 0.0, 0.0)
_NO_TABLE: Mapping[str, Any] = MappingProxyType({})


def plus(a: Counts, b: Counts, decay: float = 1.0) -> Counts:
    """Return the sum of counts, the second decayed."""
    return (a[0] + b[0] * decay, a[1] + b[1] * decay, a[2] + b[2] * decay, a[3] + b[3] * decay)


class Counters(NamedTuple):
    """What each table of an account counts, where that is not the same: positions in a row."""

    step: int
    whole: int
    rise: int
    recent: int


class Account(NamedTuple):  # of which more are made than of anything else: no value is made as quickly
    """What one metric has gathered. All evidence is kept as natural logarithms.

    Attributes:
        processes: By label: evidence of a fault since the release began, one figure per alternative.
        promotion: Evidence of no harm in this step.
        step: Counts by segment that this step's promotion rests on.
        whole: Counts by segment since the release began.
        recent: The same with a half-life of half a minute.
        plain: As ``promotion``, but a burst counts with all its events.
        state: By label: what a metric keeps besides.
        rise: Counts by segment since the evidence of a fault last said nothing: what a fault is shown by.
        rising: Seconds in which these came.
        lately: Seconds in which those of ``recent`` came, with the same half-life.
        stepping: Seconds in which those of ``step`` came; 0 where that was not stored.
        learned: What it has learned of the baseline by itself, where that is not learned of the service.
    """

    processes: Mapping[str, tuple[float, ...]]
    promotion: float
    step: Mapping[str, Counts]
    whole: Mapping[str, Counts]
    recent: Mapping[str, Counts]
    plain: float = 0.0
    state: Mapping[str, tuple[float, ...]] = _NO_TABLE
    rise: Mapping[str, Counts] = _NO_TABLE
    rising: float = 0.0
    lately: float = 0.0
    stepping: float = 0.0
    learned: Learned | None = None

    def promoted(self, gain: float, plain: float | None = None) -> Account:
        """Return the account with more evidence of no harm, or less.

        Args:
            gain: In which a burst counts about once.
            plain: In which every event counts; by default the same.
        """
        promotion, whole = self._promoted((gain, gain if plain is None else plain))
        return self._replace(promotion=promotion, plain=whole)

    def _promoted(self, gains: tuple[float, float]) -> tuple[float, float]:
        return (
            max(LEAST, min(MOST, self.promotion + gains[0])),
            max(LEAST_PLAIN, min(MOST, self.plain + gains[1])),
        )

    def restarted(self, before: int, now: int) -> Account:
        """Return the account with what begins in the minutes after ``before`` in all of its processes."""
        mass = restart_mass(before, now)
        if not mass or not self.processes:
            return self
        begun = {k: advance(p, mass, [0.0] * len(p)) for k, p in self.processes.items()}
        return self._replace(processes=begun)

    def after(
        self,
        interval: Interval,
        counter: int | Counters,
        gains: Mapping[str, Sequence[float]],
        harmless: tuple[float, float] | None,
    ) -> Account:
        """Return the account after an interval: all that a metric gathers, in one go.

        Args:
            interval: Whose counts are added.
            counter: Of what is counted.
            gains: By label: what each process gains; the others stay.
            harmless: As in :meth:`promoted`; None where the interval does not count.
        """
        processes = dict(self.processes)
        for label, gain in gains.items():
            processes[label] = interval.moved(self, label, gain)
        promotion, plain = self.promotion, self.plain
        if harmless is not None:
            promotion, plain = self._promoted(harmless)
        step, whole, rise, recent = self._counts(interval, counter)
        rising, lately = self.rising + interval.seconds, self.lately * interval.decay + interval.seconds
        stepping = self.stepped(interval)
        return Account(
            processes, promotion, step, whole, recent, plain, self.state, rise, rising, lately, stepping
        )

    def counted(self, interval: Interval, counter: int) -> Account:
        """Return the account with the interval's counts."""
        step, whole, rise, recent = self._counts(interval, counter)
        rising, lately = self.rising + interval.seconds, self.lately * interval.decay + interval.seconds
        counted = self._replace(step=step, whole=whole, rise=rise, rising=rising, recent=recent)
        return counted._replace(lately=lately, stepping=self.stepped(interval))

    def stepped(self, interval: Interval) -> float:
        """Return the seconds of the step's counts with those of the interval."""
        return self.stepping + interval.seconds if interval.counting else self.stepping

    def _counts(self, interval: Interval, counter: int | Counters) -> tuple[Mapping[str, Counts], ...]:
        """Return the tables of the step, the release, its rise and of late with the interval in them."""
        decay, step = interval.decay, dict(self.step)
        recent = {s: (a * decay, b * decay, c * decay, d * decay) for s, (a, b, c, d) in self.recent.items()}
        whole, rise = dict(self.whole), dict(self.rise)
        at = Counters(*(counter,) * 4) if isinstance(counter, int) else counter
        tables = [(whole, at.whole), (rise, at.rise), (recent, at.recent)]
        if interval.counting:
            tables.append((step, at.step))
        for segment, (canary, baseline) in interval.blocks.sums.items():
            n_c, n_b = canary[0], baseline[0]
            for table, column in tables:
                a, b, c, d = table.get(segment, _NOTHING)
                table[segment] = (n_c + a, canary[column] + b, n_b + c, baseline[column] + d)
        return step, whole, rise, recent

    def calm(self) -> Account:
        """Return the account after evidence that says nothing of a fault: what shows one begins anew."""
        if not self.rise:
            return self
        tables, kept = (self.step, self.whole, self.recent), (self.lately, self.stepping, self.learned)
        return Account(self.processes, self.promotion, *tables, self.plain, self.state, {}, 0.0, *kept)

    def next_step(self) -> Account:
        """Return the account without what belongs to one step."""
        state = {key: kept for key, kept in self.state.items() if not key.startswith(PROOF)}
        return self._replace(promotion=0.0, plain=0.0, step={}, stepping=0.0, state=state)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        tables = {"step": self.step, "whole": self.whole, "recent": self.recent, "processes": self.processes}
        if self.state:
            tables["state"] = self.state
        if self.rise:
            tables["rise"] = self.rise
        plain = {name: {key: list(table[key]) for key in sorted(table)} for name, table in tables.items()}
        own = {} if self.learned is None else {"learned": self.learned.to_json()}
        seconds = {"rising": self.rising, "lately": self.lately, "stepping": self.stepping}
        return {"promotion": self.promotion, "plain": self.plain} | seconds | plain | own

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Account:
        """Return the account of :meth:`to_json`."""
        tables = {
            name: {key: tuple(row) for key, row in data[name].items()}
            for name in ("processes", "step", "whole", "recent", "state", "rise")
            if name in data
        }
        learned = Learned.from_json(data["learned"]) if "learned" in data else None
        return cls(
            promotion=data["promotion"],
            plain=data.get("plain", data["promotion"]),
            rising=data.get("rising", 0.0),
            lately=data.get("lately", RECENT_HALF_LIFE / log(2)),  # what short intervals add up to
            stepping=data.get("stepping", 0.0),
            learned=learned,
            **tables,
        )


def begun(width: int, minute: int) -> tuple[float, ...]:
    """Return a process that is new: it has all the mass of the minutes until now."""
    return (log(FIRST_MASS + restart_mass(0, minute)),) * width


EMPTY = Account({}, 0.0, {}, {}, {})


@dataclass(frozen=True)  # no slots: what several metrics ask is worked out once
class Interval:
    """One observation, ready to be folded."""

    blocks: Blocks
    learned: Learned
    stage: Stage
    seconds: float
    minute: int  # of the evidence
    counting: bool
    observation: Observation
    begun: int = 0  # minute of the release in which the evidence began
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def kept(self, find: Find[Key, Found], key: Key) -> Found:
        """Return what is found in the interval for a key; found once for all who ask."""
        asked = find, key
        if asked not in self._kept:
            keep(Beside((self,)), find, (key,))
        found: Found = self._kept[asked]
        return found

    @once
    def decay(self) -> float:
        """What is left of counts of late after this interval."""
        found: float = 0.5 ** (self.seconds / RECENT_HALF_LIFE)
        return found

    def moved(self, account: Account, label: str, gain: Sequence[float]) -> tuple[float, ...]:
        """Return one process of an account after this interval."""
        before = account.processes.get(label) or begun(len(gain), self.minute)
        return tuple(map(add, before, gain))


@dataclass(frozen=True, eq=False)
class Beside:
    """Intervals of several releases, whose evidence is worked out in one table."""

    intervals: Sequence[Interval]
    _shared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def shared(self, find: Callable[[Sequence[Interval]], Found]) -> Found:
        """Return what is found in all of them; found once for all who ask."""
        if find not in self._shared:
            self._shared[find] = find(self.intervals)
        found: Found = self._shared[find]
        return found


def keep(beside: Beside, find: Find[Key, Found], keys: Sequence[Key]) -> None:
    """Let intervals keep what is found in each of them for the key that it has."""
    for interval, key, found in zip(beside.intervals, keys, find(beside, keys), strict=True):
        interval._kept[find, key] = found


class Folded(Protocol):
    """One thing that is gathered interval by interval."""

    @property
    def name(self) -> str:
        """How its account is called."""
        ...

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        ...


class Metric(Folded, Protocol):
    """One thing that a release is judged by; verdicts call it by its name.

    One with a property ``asks``, a `Find` and its key, has that worked out for several releases at once.
    """

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        ...
