"""One release's turn in an interval: fold what was seen, decide, apply. Pure.

The tick, a simulation and a replay all take this one way, so what one of them shows holds for the others.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias, TypeVar

from controlplane.evidence.account import Interval
from controlplane.evidence.evidence import work_out
from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Observation
from controlplane.evidence.verdict import Verdict
from controlplane.policy.values import PPM
from controlplane.release import arrivals, confirming, ending, holding, hooks
from controlplane.release import watch as watching
from controlplane.release.agreement import Clock, Routes, routes
from controlplane.release.confirming import Glance
from controlplane.release.decide import decide
from controlplane.release.health import alive
from controlplane.release.moves import NEW_STEP, apply, based, confirmed, dated, restart_step, with_gate
from controlplane.release.ports import Record
from controlplane.release.seen import Decision, Moment, Propagation, Seen
from controlplane.release.state import RETURNED, Action, Phase, ReleaseState, Stage
from controlplane.release.trial import Check
from controlplane.release.watch import Watch
from controlplane.release.way_back import alarm, describe

PARTS = 3  # of a turn that follow the working out, and have others after them
IN_PROGRESS = (Phase.PROGRESSING, Phase.GUARDING)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a release carries from one turn to the next; ``verdicts`` are the last ones."""

    state: ReleaseState
    watch: Watch = field(default_factory=Watch)
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn came to.

    Attributes:
        after: The release after it.
        decision: What was decided.
        propagation: As it was seen, with the proxies that are away.
        records: What is to be written down.
        promoted: True if the canary is what is stable from now on.
        routes: What was seen of its routes.
    """

    after: Progress
    decision: Decision
    propagation: Propagation
    records: tuple[Record, ...] = ()
    promoted: bool = False
    routes: Routes = field(default_factory=Routes)


def turn(before: Progress, learned: Learned, moment: Moment, others: Routes | None = None) -> Turn:
    """Return what becomes of a release in an interval.

    Args:
        before: The release until then; it has not ended.
        learned: From the past of the stable version, without this interval.
        moment: What was seen.
        others: The routes by which the requests came, where those were not its own.
    """
    return together((turning(before, learned, moment, others),))[0]


Turning: TypeAlias = Generator[Interval, None, Turn]
Found = TypeVar("Found")


def together(turnings: Sequence[Turning]) -> list[Turn]:
    """Return what turns come to, of which each is what it is alone: their evidence is worked out at once.

    They take each part one after another, for the code of a part is in the processor's caches then.
    """
    found = [begun(turning) for turning in turnings]
    work_out([each for each in found if isinstance(each, Interval)])
    for _ in range(PARTS):
        going = zip(turnings, found, strict=True)
        found = [begun(turning) if isinstance(each, Interval) else each for turning, each in going]
    return [ended(*each) for each in zip(turnings, found, strict=True)]


def begun(turning: Generator[Interval, None, Found]) -> Interval | Found:
    """Return the interval at which a turn stops next, or what it came to if it has come to its end."""
    try:
        return next(turning)
    except StopIteration as done:
        found: Found = done.value
        return found


def ended(turning: Generator[Interval, None, Found], found: Interval | Found) -> Found:
    """Return what a turn comes to that has begun, and has come to ``found`` so far."""
    while isinstance(found, Interval):
        found = begun(turning)
    return found


def turning(before: Progress, learned: Learned, moment: Moment, others: Routes | None = None) -> Turning:
    """Take a turn, whose arguments are those of `turn`, and stop, if it folds an interval, before that.

    So what is asked of the intervals of several releases can be worked out at once; it need not be. It stops
    again after each of the first PARTS of what follows.
    """
    state = based(before.state, moment.stable)
    if state.active or not state.unconfirmed:
        return (yield from _taken(before, state, learned, moment, others))
    took = _confirming(before, state, Glance(moment.propagation, moment.elapsed, moment.at))
    if state.ended or took.decision.action is not None:
        return took
    return (yield from _taken(before, took.after.state, learned, moment, others))


def _taken(
    before: Progress, state: ReleaseState, learned: Learned, moment: Moment, others: Routes | None
) -> Turning:
    watch, verdicts, interval = before.watch, tuple[Verdict, ...](), None
    propagation, stale, came = moment.propagation, _stale(moment), Routes()
    if state.active:
        state, propagation = _gated(state, moment)
    if state.phase in IN_PROGRESS:
        if moment.observation is not None:
            interval = _ready(watch, learned, moment.observation, state, stale=stale)
            yield interval
            watch = _folded(watch, interval, state, moment, propagation, stale=stale)
            yield interval
        clock = Clock(moment.settle, moment.elapsed)
        came = others or routes(watch, state, learned.crowd, clock, propagation.unacked)
        if came.split.problem:
            watch = watching.unproved(watch)
        check = Check(bool(came.split.problem), came.segment, learned.crowd)
        watch = watching.vouched(watch, state, check, came.shares)
        if (apart := watching.apart(watch, state)) != state.apart:
            state = state.model_copy(update={"apart": apart})
        reached = watching.unreached(state, came.missed, came.shares)
        if interval is not None:
            yield interval
        verdicts = (*watching.verdicts(watch, learned, state), *reached, *hooks.verdicts(state))
        watch = watching.heard(watch, verdicts)
        if interval is not None:
            yield interval
    where = alive(moment.where, moment.observation, state.to_version)
    seen = Seen(
        elapsed=moment.elapsed,
        propagation=propagation,
        stale=stale,
        split_problem=came.split.problem,
        split_agrees=came.split.agrees,
        split_missing=came.split.missing,
        verdicts=verdicts,
        results=watching.results(watch, state),
        endpoints=where.places,
        missing=where.missing,
        hosts=where.hosts,
        suspicion=watching.suspicion(verdicts),
        busy=moment.busy,
        stable=moment.stable,
        now=moment.at,
        blackouts=moment.blackouts,
        links=moment.links,
        served=watching.served(moment.observation, state),
        quiet=arrivals.quiet(watch.flow, state, watch.since),
        returning=arrivals.returning(watch.flow, state),
        deserted=watching.deserted(watch, learned, state, moment.elapsed),
    )
    if state.phase in IN_PROGRESS and not state.way_back:
        state = state.model_copy(update={"way_back": where.count(state.from_version) or 0})
    took = _told(_alarmed(_decided(state, watch, seen, moment.at, came), seen, moment.at), seen, moment)
    if state.phase in IN_PROGRESS or took.after.state.key != state.key:
        return took
    # Nothing is judged any more; the last verdicts are still shown.
    return replace(took, after=replace(took.after, verdicts=before.verdicts))


def _ready(
    watch: Watch, learned: Learned, observation: Observation, state: ReleaseState, *, stale: str
) -> Interval:
    """Return an interval that is ready to be folded."""
    # What the split check sees is the proof as well; nothing advances before the check agrees.
    counting = state.stage is not Stage.PROPAGATE and not stale and not state.halt
    return watching.ready(watch, learned, observation, state, counting=counting)


def _folded(
    watch: Watch,
    interval: Interval,
    state: ReleaseState,
    moment: Moment,
    propagation: Propagation,
    *,
    stale: str,
) -> Watch:
    """Return the watch with an interval, and with what it shows of the routes if they have settled."""
    # The first interval after a restart has what was counted meanwhile; it may roll back.
    settled = state.stage is not Stage.PROPAGATE and state.elapsed >= moment.settle
    watch = watching.fold(watch, interval, state, settled=settled)
    if settled and not stale:
        watch = watching.visited(watch, interval.observation, state)
    # With less than all to wait for, a client may be without the step and not split for that reason.
    if settled and propagation.at_least == PPM:
        watch = watching.follow(watch, interval.observation, state, frozenset(propagation.acked))
    return watch


def _gated(state: ReleaseState, moment: Moment) -> tuple[ReleaseState, Propagation]:
    """Return the state with its gate and its unconfirmed brought up to date, and the propagation by them."""
    unconfirmed = confirming.followed(state, Glance(moment.propagation, moment.elapsed, moment.at))
    after, propagation = with_gate(state, moment.propagation, moment.elapsed)
    if unconfirmed != after.unconfirmed:
        after = after.model_copy(update={"unconfirmed": unconfirmed})
    return after, propagation


def _confirming(before: Progress, state: ReleaseState, seen: Glance) -> Turn:
    """Return a turn in which only those count who had not what they should when the release ended.

    What is confirmed after a rollback is recorded: until then nobody was told that it is done.
    """
    known, left = state.unconfirmed, confirming.settled(state, seen)
    after = state.model_copy(update={"unconfirmed": left}) if left != known else state
    decision, records = Decision(None, "", state.because), tuple[Record, ...]()
    if not left:
        reason = confirming.how(known, seen)
        after = confirmed(state, reason)
        decision = Decision(Action.CONFIRM, "confirmed", reason)
        if state.phase is Phase.RETRYING or state.phase in RETURNED:
            records = (_record(state, decision, Seen(seen.at, seen.elapsed, seen.propagation), seen.at),)
    return Turn(replace(before, state=after), decision, seen.propagation, records)


def _decided(state: ReleaseState, watch: Watch, seen: Seen, now: datetime, came: Routes) -> Turn:
    canary = seen.endpoints.get(state.to_version, ())
    if (
        state.phase in IN_PROGRESS
        and state.canary_endpoints
        and canary
        and not {*canary} & {*state.canary_endpoints}
    ):
        reason = f"every endpoint of {state.to_version} was replaced; the step begins again"
        after, watch = restart_step(state, reason, canary), watching.next_step(watch)
        decision = Decision(None, "restarted", reason)
        noted, again = True, False
    else:
        decision = decide(state, seen)
        if decision.action is None and (asked := hooks.judging(state)):
            decision = replace(decision, calls=(*decision.calls, *asked))
        after = dated(apply(state, decision, seen), decision.action, now)
        if decision.action in (Action.START, Action.RETRY):
            watch = Watch()
        elif decision.action is Action.STEP_BACK:
            # After a failure by what was gathered, what follows must stand by itself.
            watch = watching.stepped_back(watch)
        elif decision.action in NEW_STEP:
            watch = watching.next_step(watch)
        again = holding.new_cause(state, decision)
        noted = decision.action is not None or holding.new_kind(state, decision) or again
    return Turn(
        after=Progress(after, watch, seen.verdicts if after.key == state.key else ()),
        decision=decision,
        propagation=seen.propagation,
        records=(_record(state, decision, seen, now, again=again),) if noted else (),
        promoted=after.phase is Phase.PROMOTED and state.phase is not Phase.PROMOTED,
        routes=came,
    )


def _alarmed(took: Turn, seen: Seen, now: datetime) -> Turn:
    """Return the turn with a record if the way back has become unsafe, or safe, and nothing else says so.

    A decision by which users move speaks for itself; what is still so is told by the next turn.
    """
    state = took.after.state
    code, text = alarm(state, seen.where)
    if took.decision.action in NEW_STEP or state.phase not in IN_PROGRESS or code == state.alarmed:
        return took
    after = replace(took.after, state=state.model_copy(update={"alarmed": code}))
    if took.decision.code in ("unsafe", "no-way-back"):
        return replace(took, after=after)
    words = text or f"the way back is open again: {describe(state, seen.where, seen.stable)}"
    said = replace(took.decision, code=f"way-back-{code or 'open'}", reason=words)
    record = _record(state, said, seen, now).model_copy(update={"action": "unsafe" if code else "safe"})
    return replace(took, after=after, records=(*took.records, record))


def _told(took: Turn, seen: Seen, moment: Moment) -> Turn:
    """Return the turn with a record if people are to be told of a hold, or that it is over."""
    lasts = max(holding.LASTS, 2 * moment.settle)  # four intervals
    after, action, words = holding.telling(took.after.state, took.decision, moment.elapsed, lasts)
    if after is took.after.state and not action:
        return took
    records = took.records
    if action:
        record = _record(after, replace(took.decision, reason=words, failure=None), seen, moment.at)
        records = (*records, record.model_copy(update={"action": action}))
    return replace(took, after=replace(took.after, state=after), records=records)


def _stale(moment: Moment) -> str:
    """Return why an interval must not count, or ''."""
    observation = moment.observation
    if moment.first or observation is None:
        return "no statistics yet"
    if observation.silent:
        return f"no statistics from {', '.join(observation.silent)}"
    if observation.late:
        return f"statistics of {', '.join(observation.late)} are late"
    if observation.partial:
        return "; ".join(f"statistics of {proxy} are partial: {why}" for proxy, why in observation.partial)
    # A proxy that exports just after the interval's end is in none of the lists: the next one has its counts.
    return "" if observation.fresh else "no statistics in this interval"


def _record(
    state: ReleaseState, decision: Decision, seen: Seen, now: datetime, *, again: bool = False
) -> Record:
    numbers: dict[str, object] = {
        "acked": len(seen.propagation.acked),
        "live": len(seen.propagation.live),
        "suspicion": seen.suspicion,
        "code": decision.code,
        "cause": decision.cause,
        "again": again,  # of the hold before, for another cause
        "verdicts": [
            {
                "metric": v.metric,
                "segment": v.segment,
                "outcome": str(v.outcome),
                "reason": v.reason,
                "note": v.note,
                "numbers": dict(v.numbers),
                "requests_needed": v.requests_needed,
                "seconds_needed": v.seconds_needed,
            }
            for v in seen.verdicts
        ],
    }
    if decision.failure is not None:
        numbers["failure"] = str(decision.failure)
    if seen.results:
        numbers["result"] = ending.figures(seen.results)
    return Record(
        at=now,
        kind="decision",
        release=state.name,
        attempt=state.attempt,
        service=state.service,
        action=str(decision.action) if decision.action else "hold",
        step=state.at,
        reason=decision.reason,
        numbers=numbers,
    )
