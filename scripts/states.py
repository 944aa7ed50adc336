"""Draw the table of a release's states as docs/release-states.md, or check that the file is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from controlplane.release.state import FINAL, TRANSITIONS, Phase

TARGET = Path(__file__).parent.parent / "docs" / "release-states.md"

_HEAD = """\
# The states of a release

<!-- Written by scripts/states.py from controlplane/release/state.py; do not edit. -->

What is not in this picture cannot happen: an operator who asks for it is refused with what is possible, and
the loop never does it. Arrows from a phase to itself: `proceed` goes to the next stage of a step (propagate,
verify, judge), `advance` to the next step; `pause`, `freeze` and `resume` leave traffic alone.

"""


def picture() -> str:
    """Return the page."""
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, action), after in TRANSITIONS.items():
        arrows.setdefault((phase, after), []).append(str(action))
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {Phase.WAITING}"]
    lines += [f"    {start} --> {end}: {', '.join(actions)}" for (start, end), actions in arrows.items()]
    lines += [f"    {phase} --> [*]" for phase in Phase if phase in FINAL]
    table = ["| phase | action | phase after |", "|---|---|---|"]
    table += [f"| {phase} | {action} | {after} |" for (phase, action), after in TRANSITIONS.items()]
    return _HEAD + "\n".join([*lines, "```", "", *table]) + "\n"


def main() -> None:
    """Write the page, or with --check compare."""
    if "--check" not in sys.argv:
        TARGET.write_text(picture())
    elif not TARGET.exists() or TARGET.read_text() != picture():
        sys.exit(f"{TARGET.name} is not as the table says; run python scripts/states.py")


if __name__ == "__main__":
    main()
