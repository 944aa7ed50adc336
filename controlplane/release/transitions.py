"""The tables of what may happen in which phase and halt, and where it leads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from controlplane.release.gates import approvable
from controlplane.release.state import RETURNED, Action, Halted, Phase, ReleaseState, Stage

# A missing pair cannot happen: an operator who asks for it is refused, and the loop that does it has a bug.
# PAUSE, FREEZE and RESUME leave the phase alone; what they do to the halt is in HALTS. APPROVE and ARM open a
# gate.
TRANSITIONS: Mapping[tuple[Phase, Action], Phase] = {
    (Phase.WAITING, Action.START): Phase.PROGRESSING,
    (Phase.WAITING, Action.ARM): Phase.WAITING,
    (Phase.WAITING, Action.APPROVE): Phase.WAITING,
    (Phase.WAITING, Action.FREEZE): Phase.WAITING,
    (Phase.WAITING, Action.PAUSE): Phase.WAITING,
    (Phase.WAITING, Action.RESUME): Phase.WAITING,
    (Phase.WAITING, Action.ROLL_BACK): Phase.ROLLED_BACK,
    (Phase.PROGRESSING, Action.PROCEED): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.ADVANCE): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.GUARD): Phase.GUARDING,
    (Phase.PROGRESSING, Action.PROMOTE): Phase.PROMOTED,
    (Phase.PROGRESSING, Action.STEP_BACK): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.ROLL_BACK): Phase.ROLLING_BACK,
    (Phase.PROGRESSING, Action.END): Phase.ENDING,
    (Phase.PROGRESSING, Action.APPROVE): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.DOOM): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.FREEZE): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.PAUSE): Phase.PROGRESSING,
    (Phase.PROGRESSING, Action.RESUME): Phase.PROGRESSING,
    (Phase.GUARDING, Action.PROCEED): Phase.GUARDING,
    (Phase.GUARDING, Action.CROSS): Phase.GUARDING,
    (Phase.GUARDING, Action.PROMOTE): Phase.PROMOTED,
    (Phase.GUARDING, Action.STEP_BACK): Phase.PROGRESSING,
    (Phase.GUARDING, Action.ROLL_BACK): Phase.ROLLING_BACK,
    (Phase.GUARDING, Action.APPROVE): Phase.GUARDING,
    (Phase.GUARDING, Action.DOOM): Phase.GUARDING,
    (Phase.GUARDING, Action.FREEZE): Phase.GUARDING,
    (Phase.GUARDING, Action.PAUSE): Phase.GUARDING,
    (Phase.GUARDING, Action.RESUME): Phase.GUARDING,
    (Phase.ROLLING_BACK, Action.FINISH): Phase.ROLLED_BACK,
    (Phase.ROLLING_BACK, Action.REST): Phase.RETRYING,
    (Phase.WAITING, Action.CONFIRM): Phase.WAITING,
    (Phase.RETRYING, Action.CONFIRM): Phase.RETRYING,
    (Phase.ROLLED_BACK, Action.CONFIRM): Phase.ROLLED_BACK,
    (Phase.ENDED, Action.CONFIRM): Phase.ENDED,
    (Phase.PROMOTED, Action.CONFIRM): Phase.PROMOTED,
    (Phase.RETRYING, Action.RETRY): Phase.WAITING,
    (Phase.RETRYING, Action.ROLL_BACK): Phase.ROLLED_BACK,
    (Phase.RETRYING, Action.PAUSE): Phase.RETRYING,
    (Phase.RETRYING, Action.RESUME): Phase.RETRYING,
    (Phase.ROLLED_BACK, Action.RETRY): Phase.WAITING,
    (Phase.PROMOTED, Action.RETRY): Phase.WAITING,
    (Phase.ENDING, Action.FINISH): Phase.ENDED,
    (Phase.ENDED, Action.RETRY): Phase.WAITING,
}

_NEVER: Final = "never"
_FROM: tuple[Halted, ...] = (None, "paused", "frozen")
_ROWS: Mapping[Action, tuple[Halted | Literal["never"], ...]] = {
    Action.PAUSE: ("paused", "paused", _NEVER),  # who has to decide does not get rid of that
    Action.FREEZE: ("frozen", "frozen", "frozen"),
    Action.RESUME: (_NEVER, None, None),
    Action.APPROVE: (None, "paused", "frozen"),  # what is frozen for want of it goes on
    Action.DOOM: (None, "paused", "frozen"),
    Action.CONFIRM: (None, "paused", "frozen"),
    Action.PROCEED: (None, _NEVER, _NEVER),
    Action.ARM: (None, None, None),
    Action.START: (None, None, None),
    Action.ADVANCE: (None, None, None),
    Action.GUARD: (None, None, None),
    Action.CROSS: (None, None, None),
    Action.PROMOTE: (None, None, None),
    Action.STEP_BACK: (None, None, None),
    Action.ROLL_BACK: (None, None, None),
    Action.END: (None, None, None),
    Action.FINISH: (None, None, None),
    Action.REST: (None, None, None),
    Action.RETRY: (None, None, None),
}
# What becomes of a halt by an action. As above: a missing pair cannot happen.
HALTS: Mapping[tuple[Halted, Action], Halted] = {
    (halt, action): after
    for action, row in _ROWS.items()
    for halt, after in zip(_FROM, row, strict=True)
    if after != _NEVER
}
# What PROCEED leads to; after judging comes another step.
STAGES: Mapping[Stage, Stage] = {Stage.PROPAGATE: Stage.VERIFY, Stage.VERIFY: Stage.JUDGE}

# What the loop does, or what an operator's `advance` turns out to be.
BY_ITSELF = frozenset(
    {
        Action.ARM,
        Action.CONFIRM,
        Action.CROSS,
        Action.DOOM,
        Action.FINISH,
        Action.FREEZE,
        Action.GUARD,
        Action.PROCEED,
        Action.REST,
        Action.START,
        Action.STEP_BACK,
    }
)


class NotAllowedError(ValueError):
    """The action is not possible in this phase; the message says what is."""


def transition(state: ReleaseState, action: Action) -> Phase:
    """Return the phase after ``action``.

    Raises:
        NotAllowedError: If the table has no such pair for its phase, or none for its halt.
    """
    if possible(state.phase, state.halt, action):
        return TRANSITIONS[state.phase, action]
    other = BY_ITSELF if state.policy.ends else BY_ITSELF | {Action.END}
    other = other if approvable(state) else other | {Action.APPROVE}
    allowed = sorted(a for a in Action if a not in other and possible(state.phase, state.halt, a))
    if possible(state.phase, state.halt, Action.START):
        allowed = [Action.ADVANCE, *allowed]  # by which a person starts it
    hint = f"possible: {', '.join(allowed)}" if allowed else "it ends by itself"
    if state.ended:
        hint = "it has ended; `turnout release` starts another"
        hint += f", `turnout retry {state.name}` the same once {state.to_version} is not stable any more"
        if state.phase in RETURNED:
            hint = f"it has ended; `turnout retry {state.name}` runs it again"
    now = f"{state.phase} and {state.halt}" if state.halt else str(state.phase)
    if (state.phase, action) in TRANSITIONS and state.halt is None:
        now += ", neither paused nor frozen"
    raise NotAllowedError(f"release {state.name!r} is {now}: cannot {action}; {hint}")


def possible(phase: Phase, halt: Halted, action: Action) -> bool:
    """Return whether the tables have an action in a phase and a halt."""
    return (phase, action) in TRANSITIONS and (halt, action) in HALTS
