"""A recorded release decided again, under its own policy or another one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

from controlplane.evidence.learned import Learned, learn
from controlplane.policy.pinned import PinnedPolicy
from controlplane.release import watch as watching
from controlplane.release.agreement import Routes
from controlplane.release.moves import act, dated
from controlplane.release.recording import Origin, Recorded
from controlplane.release.state import Action, ReleaseState
from controlplane.release.turn import Progress, Turn, turn


@dataclass(frozen=True, slots=True)
class Replayed:
    """One turn, taken again; ``left_out`` is True if an operator's act before it was not followed."""

    recorded: Recorded
    turn: Turn
    left_out: bool = False


def replay(
    origin: Origin, turns: Iterable[Recorded], policy: PinnedPolicy | None = None
) -> Iterator[Replayed]:
    """Yield each turn as it comes out now, until the release ends or nothing more was recorded.

    The traffic is what it was: under another policy the counts are still those of the recorded shares, and
    the split is still checked against these. So its conditions can be tried, its steps only as far as they
    ask for the same shares. What operators did is followed under the release's own policy only, but for the
    start: who started it would have started it.
    """
    turns = tuple(turns)
    state = origin.state
    came: Iterable[Routes | None] = repeat(None)
    if policy is not None:
        state = state.model_copy(update={"policy": policy})
        own = (each.turn.routes for each in replay(origin, turns))
        came = chain(own, repeat(Routes()))
    progress, learned = Progress(state), Learned.from_json(origin.learned)
    for number, (recorded, routes) in enumerate(zip(turns, came, strict=False)):
        given, left_out = recorded.state, False
        if given is not None and policy is None:
            progress = _given(progress, given)
        elif given is not None and number == 0:
            # What the loop starts is there from the start on as it left it.
            progress = _started(progress.state, given)
        elif given is not None:
            left_out = (given.phase, given.step, given.halt) != (
                progress.state.phase, progress.state.step, progress.state.halt,
            )  # fmt: skip
        took = turn(progress, learned, recorded.moment, routes)
        yield Replayed(recorded, took, left_out)
        if recorded.moment.observation is not None:
            left = watching.whole(progress.state)
            learned = learn(learned, recorded.moment.observation, recorded.moment.stable, left=left)
        progress = took.after
        if progress.state.ended:
            return


def _started(state: ReleaseState, given: ReleaseState) -> Progress:
    """Return a release under another policy, at its first step as a person started it."""
    begun = dated(act(state, Action.START, given.because), Action.START, given.started_at or given.created_at)
    where = {"canary_endpoints": given.canary_endpoints, "way_back": given.way_back}
    return Progress(begun.model_copy(update=where))


def _given(progress: Progress, given: ReleaseState) -> Progress:
    """Return the release as an operator left it."""
    return Progress(given, watching.acted(progress.watch, progress.state, given), progress.verdicts)
