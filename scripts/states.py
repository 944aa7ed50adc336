"""Draw the tables of a release's states as docs/release-states.md, or check that the file is up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from controlplane.release.outcomes import FAILURES, Outcome, Place
from controlplane.release.state import FINAL, Action, Halt, Phase, Stage
from controlplane.release.transitions import HALTS, STAGES, TRANSITIONS

TARGET = Path(__file__).parent.parent / "docs" / "release-states.md"

_HEAD = """\
# The states of a release

<!-- Written by scripts/states.py from controlplane/release/transitions.py and outcomes.py; do not edit. -->

What is not in these tables cannot happen: an operator who asks for it is refused with what is possible, and
the loop never does it.

## Phases

Arrows from a phase to itself: `proceed` goes to the next stage of a step, `advance` to the next step;
`pause`, `freeze` and `resume` leave traffic alone.

"""
_STAGES = """
## The stages of a step, and of the guard

"""
_HALTS = """
## Paused and frozen

A person pauses a release, a failure freezes it: then it needs a person. The loop takes traffic away from a
halted release, and never gives it more. What ends a halt is a person, or the way back. After that a release
does not start again by itself: `on_failure.retry` is for what nobody had halted.

"""
_APPROVED = """
`approve` ends a freeze that is for want of just that approval.
"""
_FAILURES = """
## Failures

What each leads to, and what `turnout resume` does after it has frozen a release: the same failure does not
freeze it again at once. What the policy has freeze or hold leaves a frozen release as it is; a failure of
another kind is told, and `resume` is then for both.

"""
_HALT_NAMES: Mapping[Halt | None, str] = {None: "not halted", "paused": "paused", "frozen": "frozen"}


def page() -> str:
    """Return the page."""
    parts = (_HEAD, _phases(), _STAGES, _stages(), _HALTS, _halts(), _APPROVED, _FAILURES, _failures())
    return "".join(parts)


def _phases() -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for (phase, action), after in TRANSITIONS.items():
        arrows.setdefault((phase, after), []).append(action)
    ends = [f"    {phase} --> [*]" for phase in Phase if phase in FINAL]
    rows = ((phase, action, after) for (phase, action), after in TRANSITIONS.items())
    drawn = _diagram(f"    [*] --> {Phase.WAITING}", arrows, ends)
    return f"{drawn}\n{_table(('phase', 'action', 'phase after'), rows)}"


def _stages() -> str:
    arrows = {(str(before), str(after)): ["proceed"] for before, after in STAGES.items()}
    last = next(stage for stage in Stage if stage not in STAGES)
    onwards = f"    {last} --> [*]: advance, guard, cross, promote"
    return _diagram(f"    [*] --> {Stage.PROPAGATE}", arrows, [onwards])


def _halts() -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for (halt, action), after in HALTS.items():
        if after != halt and _halts_matter(action):
            edge = (_id(halt), _id(after))
            arrows.setdefault(edge, []).append(action)
    rows = [
        (action, *(_after(halt, action) for halt in _HALT_NAMES))
        for action in Action
        if _halts_matter(action)
    ]
    drawn = _diagram(f"    [*] --> {_id(None)}", arrows, ())
    return f"{drawn}\n{_table(('action', *_HALT_NAMES.values()), rows)}"


def _halts_matter(action: Action) -> bool:
    """Return whether an action is possible in a phase that can be halted."""
    halted = {phase for phase, each in TRANSITIONS if each in (Action.PAUSE, Action.FREEZE)}
    return any((phase, action) in TRANSITIONS for phase in halted)


def _after(halt: Halt | None, action: Action) -> str:
    return _HALT_NAMES[HALTS[halt, action]] if (halt, action) in HALTS else "never"


def _id(halt: Halt | None) -> str:
    return _HALT_NAMES[halt].replace(" ", "_")


def _failures() -> str:
    places = [
        place for place in Place if any(rule.at(place) is not Outcome.NOTHING for rule in FAILURES.values())
    ]
    head = (
        "failure",
        "the policy says it in",
        *places,
        "also while halted",
        "`turnout resume` after a freeze",
    )
    rows = (
        (
            f"{failure}: {rule.what}",
            f"`{rule.field}`" if rule.field else "-",
            *(rule.at(place) for place in places),
            "yes" if rule.halted else "no",
            rule.resumed,
        )
        for failure, rule in FAILURES.items()
    )
    return _table(head, rows)


def _diagram(start: str, arrows: Mapping[tuple[str, str], Sequence[str]], ends: Iterable[str]) -> str:
    between = (f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in arrows.items())
    lines = ("```mermaid", "stateDiagram-v2", "    direction LR", start, *between, *ends, "```", "")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (" | ".join(line) for line in (head, *rows))
    first, *others = (f"| {line} |\n" for line in lines)
    return "".join((first, f"|{'---|' * len(head)}\n", *others))


def main() -> None:
    """Write the page, or with --check compare."""
    if "--check" not in sys.argv:
        TARGET.write_text(page())
    elif not TARGET.exists() or TARGET.read_text() != page():
        sys.exit(f"{TARGET.name} is not as the tables say; run python scripts/states.py")


if __name__ == "__main__":
    main()
