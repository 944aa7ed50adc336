"""The decision: what a release does now, and why. Pure: state, what was seen, and nothing else.

Order of the questions, each stage only after the one before it:

1. rollback evidence (in every stage, also while paused: it may always take traffic away)
2. halt: a person paused it or a policy froze it
3. propagate: has every live proxy acknowledged this step's resources?
4. verify: does the split seen in Envoy's counters agree with the one that was asked for?
5. judge: has every condition passed, for long enough, on fresh data?
6. gates (release/gates.py): may the next step begin? Until then the conditions of this one go on guarding.

Past the point of no return after the guard, 3 to 6 are behind it: only what its call came to is asked for.
"""

from __future__ import annotations

from controlplane.evidence.verdict import Outcome
from controlplane.policy.documents import Ends
from controlplane.policy.values import format_duration, format_seconds, format_share
from controlplane.release import confirming, crossing, ending, failure, gates, overdue, telling
from controlplane.release.broken import baseline
from controlplane.release.ending import SUSPICIOUS
from controlplane.release.failure import Failed, follows
from controlplane.release.moves import next_action
from controlplane.release.outcomes import Failure
from controlplane.release.seen import Decision, Propagation, Seen
from controlplane.release.state import NOTHING, Action, Phase, ReleaseState, Stage
from controlplane.release.unconfirmed import named

NOT_YET, QUIET = "not-yet", "quiet"
UNREACHED = frozenset({"nack", "left-alone", "no-proxy"})  # a rollback would not reach them either


def decide(state: ReleaseState, seen: Seen) -> Decision:
    """Return what happens to a release now.

    Source: DESIGN "How a release runs"; docs/decision-rule.md, "Thresholds".
    """
    match state.phase:
        case Phase.WAITING:
            return _waiting(state, seen)
        case Phase.ROLLING_BACK | Phase.ENDING:
            return _returning(state, seen)
        case Phase.RETRYING:
            return _retrying(state, seen)
        case Phase.PROMOTED | Phase.ROLLED_BACK | Phase.ENDED:
            return Decision(None, "", state.reason)
        case Phase.PROGRESSING | Phase.GUARDING:
            return _in_progress(state, seen)


def _waiting(state: ReleaseState, seen: Seen) -> Decision:
    if (gone := _gone_with(state, seen)) is not None:
        return gone
    if (halted := _halted(state, seen)) is not None:
        return halted
    if (shut := gates.shut(state, seen)) is not None:
        return shut
    return Decision(Action.START, "start", f"first step: {describe_step(state, 0)}")


def _returning(state: ReleaseState, seen: Seen) -> Decision:
    propagation = seen.propagation
    acked, live = len(propagation.acked), len(propagation.live)
    end = Action.FINISH if state.rest is None else Action.REST
    done, until, why = "rolled-back", "rolling-back", ""
    if state.rest is not None:
        why = f"; starts again after {format_duration(state.rest)}, as attempt {state.attempt + 1}"
    if state.phase is Phase.ENDING:
        done, until, why = "ended", "ending", f"; {state.reason}"
    if seen.stable not in ("", state.from_version):
        why += f"; {seen.stable} was made stable meanwhile and has every request"
    troubled = (*propagation.nacked, *propagation.unserved)
    still = [*propagation.waiting, *(f"{proxy} ({why})" for proxy, why in troubled)]
    listed = {*propagation.absent, *(proxy for proxy, _ in troubled)}
    away = tuple(each for each in confirming.soon(state.unconfirmed) if each.proxy not in listed)
    who = ", ".join((*still, *(each.proxy for each in away)))
    still += [named(away)] if away else []
    if not live and (away or (not still and state.elapsed < confirming.SOON)):
        # After a restart the proxies take a moment to return; none for a minute means that none will soon.
        words = f"; may still serve the canary: {', '.join(still)}" if still else ""
        return Decision(None, "no-proxy", f"no proxy is connected{words}", cause=who)
    if still:
        return Decision(None, until, f"may still serve the canary: {', '.join(still)}", cause=who)
    known = f"{acked} of {live} proxies acknowledged" if live else "no proxy is connected"
    open_ = confirming.ending(state.unconfirmed, propagation, state.to_version)
    return Decision(end, done, f"{known}{why}{open_}")


def _retrying(state: ReleaseState, seen: Seen) -> Decision:
    for question in (_gone_with, _halted):
        if (answer := question(state, seen)) is not None:
            return answer
    left = state.rest if state.rest is not None else NOTHING
    again = f"starts again in {format_duration(left)}, as attempt {state.attempt + 1}"
    if state.unconfirmed:
        then = again if left > NOTHING else "does not start again before its rollback is confirmed"
        who = ", ".join(each.proxy for each in state.unconfirmed)
        return Decision(None, "unconfirmed", f"{then}; NOT CONFIRMED: {confirming.doubt(state)}", cause=who)
    if left > NOTHING:
        return Decision(None, "retrying", again)
    return Decision(Action.RETRY, "retry", f"starts again, as attempt {state.attempt + 1}")


def _in_progress(state: ReleaseState, seen: Seen) -> Decision:
    for question in (_doomed, _failing, _gone_with, crossing.decide, _halted, _late):
        if (answer := question(state, seen)) is not None:
            return answer
    match state.stage:
        case Stage.PROPAGATE:
            return _propagate(state, seen.propagation)
        case Stage.VERIFY:
            return _verify(state, seen)
        case Stage.JUDGE:
            ends = state.policy.ends if state.testing else None
            return _judge(state, seen) if ends is None else _test(state, ends, seen)


def _failing(state: ReleaseState, seen: Seen) -> Decision | None:
    failed = next((v for v in seen.verdicts if v.decisive and v.outcome is Outcome.FAIL), None)
    return follows(state, seen, failure.condition(state, failed)) if failed is not None else None


def _halted(state: ReleaseState, seen: Seen) -> Decision | None:
    _ = seen
    return Decision(None, state.halt, state.halted or state.because) if state.halt else None


def _gone_with(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return the rollback of a release that must not go on without others, whatever it is by itself."""
    links = seen.links
    if not (links.superseded or links.fallen or links.failed):
        return None
    back = state.policy.on_failed_dependency == "rollback"
    found = (
        Failed(Failure.SUPERSEDED, "superseded", links.superseded),
        Failed(Failure.GROUP, "group", links.fallen),
        Failed(
            Failure.DEPENDENCY,
            "dependency",
            links.failed and f"{links.failed} (on_failed_dependency: rollback)",
        ),
    )
    answers = (follows(state, seen, each) for each in (found if back else found[:-1]) if each.reason)
    return next((answer for answer in answers if answer is not None), None)


def _doomed(state: ReleaseState, seen: Seen) -> Decision | None:
    """Go back when those that depend on it have; they get the time that a change may take to reach proxies.

    What is certain to go back asks nothing else.
    """
    if not state.doomed:
        return None
    if seen.links.first and state.dooming < seen.propagation.within:
        return Decision(None, "doomed", f"{state.doomed}; {seen.links.first} is not back yet")
    return follows(state, seen, Failed(Failure.GROUP, "doomed", state.doomed))


def _late(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return what happens when a step or the release has taken longer than the policy allows."""
    step, policy = state.current, state.policy
    if step is not None and step.within is not None and state.stepping >= step.within:
        what = f"step {step.name!r} did not pass within {format_duration(step.within)}"
    elif policy.deadline is not None and state.running >= policy.deadline:
        what = f"not promoted within {format_duration(policy.deadline)}, the deadline"
    else:
        return None
    do, how = policy.on_timeout, f"; `turnout advance {state.name}` goes on"
    why = f"{what} (on_timeout: rollback)" if do == "rollback" else f"{what}{how}"
    return follows(state, seen, Failed(Failure.LATE, "late", why, do))


def _propagate(state: ReleaseState, propagation: Propagation) -> Decision:
    problem = _not_propagated(propagation)
    if problem is not None:
        if problem.code == "propagate" and state.elapsed > propagation.within:
            late = f"not acknowledged within {format_duration(propagation.within)} by"
            who = ", ".join(propagation.waiting)
            return Decision(None, "stragglers", f"{late} {who}", cause=who)
        return problem
    acked, live = len(propagation.acked), len(propagation.live)
    return Decision(Action.PROCEED, "propagated", f"{acked} of {live} proxies acknowledged")


def _not_propagated(propagation: Propagation) -> Decision | None:
    if propagation.alone:
        return Decision(None, "left-alone", propagation.left_alone, cause=propagation.left_alone)
    if propagation.trouble:
        return Decision(None, "nack", propagation.trouble, cause=propagation.trouble)
    if not propagation.live:
        return Decision(None, "no-proxy", "no proxy is connected")
    if not propagation.complete:
        return Decision(None, "propagate", f"not yet acknowledged by {', '.join(propagation.waiting)}")
    return None


def _verify(state: ReleaseState, seen: Seen) -> Decision:
    problem = _not_trusted(seen)
    if problem is not None:
        return _unsure(state, seen, problem)
    if seen.deserted:
        return _unsure(state, seen, Decision(None, QUIET, seen.deserted, cause=state.service))
    if not seen.split_agrees:
        few = f"too few requests to verify the split: {seen.split_missing}"
        return _unsure(state, seen, Decision(None, "verify", few))
    return Decision(Action.PROCEED, "verified", "the observed split agrees with the one asked for")


def _not_trusted(seen: Seen) -> Decision | None:
    if seen.propagation.trouble or seen.propagation.alone:
        return _not_propagated(seen.propagation)
    if not seen.propagation.live:
        return Decision(None, "no-proxy", "no proxy is connected")
    if seen.stale:
        return Decision(None, "stale", seen.stale, cause=seen.stale)
    if seen.split_problem:
        # Without the counts, which are others in each interval.
        where = seen.split_problem.partition(": ")[0]
        return Decision(None, "split", seen.split_problem, cause=where)
    return None


def _judgeable(state: ReleaseState, seen: Seen) -> Decision | None:
    """Return why an interval is no time of judging: what came before says nothing of now."""
    quiet = Decision(None, QUIET, seen.quiet, cause=state.to_version) if seen.quiet else None
    returning = Decision(None, "returning", seen.returning) if seen.returning else None
    return _not_trusted(seen) or quiet or returning


def _judge(state: ReleaseState, seen: Seen) -> Decision:
    problem = _judgeable(state, seen) or overdue.without_data(seen.unproved)
    if problem is not None:
        return _unsure(state, seen, problem)
    judged = state.judged + seen.elapsed
    guarding = state.phase is Phase.GUARDING
    least = state.policy.guard.for_ if guarding else state.policy.steps[state.step].for_
    if seen.suspicion >= SUSPICIOUS:
        suspicious = f"suspicious: e-value {seen.suspicion:.3g}, rollback at 100"
        who = telling.loudest(seen.verdicts)
        return _unsure(
            state, seen, Decision(None, "suspicious", f"{suspicious}; {who}", counts=True, cause=who)
        )
    broken = baseline(seen.verdicts)
    if judged < least:
        of_least = f"judged for {format_seconds(judged)} of at least {format_duration(least)}"
        return broken or Decision(None, "dwell", of_least, counts=True)
    # The guard ends with a proof like any step: its end gives the hold-back to the canary.
    if broken or seen.unproved:
        why, cause = telling.lacks(seen.unproved), telling.causes(seen.unproved)
        return _unsure(state, seen, broken or Decision(None, NOT_YET, why, counts=True, cause=cause))
    proof = telling.proof(seen.verdicts)
    if guarding:
        return _onwards(state, seen, "guarded", f"guarded for {format_seconds(judged)}: {proof}")
    return _onwards(state, seen, "passed", f"{proof}, judged for {format_seconds(judged)}")


def _test(state: ReleaseState, ends: Ends, seen: Seen) -> Decision:
    """Return what an A/B test does: it goes on for its time, whatever it shows meanwhile."""
    problem = _judgeable(state, seen)
    if problem is not None:
        return problem
    judged = state.judged + seen.elapsed
    shown = ending.summary(seen.results)
    if judged < ends.after:
        if (held := ending.without_data(seen) or baseline(seen.verdicts)) is not None:
            return held
        of = f"tested for {ending.lasted(judged)} of {format_duration(ends.after)}"
        return Decision(None, "testing", f"{of}; {shown}", counts=True)
    over = f"tested for {ending.lasted(judged)}; {shown}"
    match ends.do:
        case "report":
            return ending.return_all(state, seen, "reported", over)
        case "ask":
            return ending.ask(state, over)
        case "promote_if_better":
            kept = ending.promotion(state, seen, over, judged - ends.after)
            return kept or _onwards(state, seen, "better", over)


def _onwards(state: ReleaseState, seen: Seen, code: str, reason: str) -> Decision:
    if not seen.endpoints.get(state.to_version):
        return crossing.no_endpoints(state, seen)
    if (shut := gates.shut(state, seen)) is not None:
        return shut
    action = next_action(state)
    if action is Action.CROSS:
        reason += "; crosses the point of no return"
    return Decision(action, code, reason, counts=True)


def _unsure(state: ReleaseState, seen: Seen, held: Decision) -> Decision:
    """Return what the policy says of a step that has gone without proof for long; until then it is held.

    Whatever lacks, it may go back. It goes on only where requests came and nothing but their number lacks,
    and not while anything speaks against the canary.
    """
    rule, spent = state.policy.when_unsure, state.unproved + seen.elapsed
    if rule.do == "hold" or spent < rule.after or held.code in UNREACHED or state.testing:
        return held
    after = f"unsure for {format_seconds(spent)} (when_unsure: {rule.do}): {held.reason}"
    if rule.do == "rollback":
        return follows(state, seen, Failed(Failure.UNSURE, "unsure/everyone", after)) or held
    enough = seen.sighted and state.sighted + seen.elapsed >= rule.after
    doubtful = any(v.doubtful for v in seen.unproved)
    if held.code != NOT_YET or not enough or doubtful or state.phase is Phase.GUARDING:
        return held
    return _onwards(state, seen, "without-proof", f"advanced without proof; {after}")


def describe_step(state: ReleaseState, step: int) -> str:
    """Return a step in a few words: ``beta (50% of beta)``."""
    if step >= state.steps:
        return "guard"
    pinned = state.policy.steps[step]
    return f"{pinned.name} ({format_share(pinned.share)} of {pinned.segment})"
