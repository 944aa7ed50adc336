"""Draw the pictures of the demo in docs/ from real runs: one that is promoted, one that is rolled back.

Each run takes as long as `turnout demo` does. A picture is a frame of the live view, not drawn by hand.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.terminal_theme import MONOKAI

from controlplane.app.logs import quiet
from controlplane.demo.fault import Fault
from controlplane.demo.run import Options, run
from controlplane.demo.status import DemoStatus
from controlplane.demo.view import draw

DOCS = Path(__file__).parent.parent / "docs"
WIDTH = 100
MOMENT = "half"  # the step of a good release that is shown
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # loaded from elsewhere
FONTS = "DejaVu Sans Mono, Menlo, Consolas"
ASPECT = 0.602  # width of a character by its height, in the first of them


class Film:
    """A view that keeps every frame instead of showing it."""

    def __init__(self) -> None:
        self.frames: list[DemoStatus] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, status: DemoStatus) -> None:
        """Keep a frame."""
        self.frames.append(status)


def film(fault: str) -> list[DemoStatus]:
    """Run the demo to its end and return what the live view would have shown."""
    view = Film()
    facts = asyncio.run(run(Options(Fault.parse(fault)), view))
    print(f"{fault}: {facts.outcome}, {facts.reason.rule}")
    return view.frames


def moment(frames: list[DemoStatus]) -> DemoStatus:
    """Return the last frame of the step that is shown, before its activity grows too long for the title."""
    reached = [
        f for f in frames if f.step and f.steps[f.step - 1].name == MOMENT and f.phase == "progressing"
    ]
    return next((f for f in reversed(reached) if f.proofs and len(f.activity) < 50), reached[-1])


def write(name: str, title: str, status: DemoStatus) -> None:
    """Write one frame as SVG, without fonts from elsewhere."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(draw(status))
    svg = console.export_svg(title=title, theme=MONOKAI, font_aspect_ratio=ASPECT, unique_id="turnout")
    path = DOCS / name
    path.write_text(FONT_FACE.sub("", svg).replace("Fira Code", FONTS))
    print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size // 1024} KB")


def main() -> None:
    """Draw all pictures, or those of one fault: `picture.py none`, `picture.py errors=10%`."""
    quiet()
    for fault in sys.argv[1:] or ("none", "errors=10%"):
        frames = film(fault)
        command = "turnout demo" if fault == "none" else f"turnout demo --fault {fault}"
        if fault == "none":
            write("demo.svg", command, moment(frames))
            write("demo-promoted.svg", command, frames[-1])
        else:
            write("demo-rolled-back.svg", command, frames[-1])


if __name__ == "__main__":
    main()
