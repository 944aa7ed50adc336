"""Tables and rows that fit the terminal: names stay whole, and to a pipe everything is one line per row."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from controlplane.cli.client import console

PROSE = frozenset({"why", "problems", "hosts", "acknowledged", "scopes"})  # columns that may be folded
LEAST_PROSE = 24  # characters
BETWEEN = 2  # columns
ENDLESS = 1_000_000  # characters: the width of what is no terminal


@dataclass(frozen=True, slots=True)
class Listing:
    """A table whose names are never folded.

    Attributes:
        heads: Titles of the columns; those of ``PROSE`` are folded at words.
        rows: One text for each column.
        spare: Columns that are left out where there is no room for all, the first ones first.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    spare: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for a width."""
        shown = self._shown(options.max_width)
        fits = self._width(shown) <= options.max_width
        table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, BETWEEN, 0, 0))
        for at in shown:
            table.add_column(self.heads[at], overflow="fold", no_wrap=fits and self.heads[at] not in PROSE)
        for row in self.rows:
            table.add_row(*(Text(printable(row[at])) for at in shown))
        yield table

    def _shown(self, width: int) -> list[int]:
        """Return the positions of the columns for which there is room."""
        shown = list(range(len(self.heads)))
        for head in self.spare:
            if self._width(shown) > width:
                shown.remove(self.heads.index(head))
        return shown

    def _width(self, shown: Collection[int]) -> int:
        """Return how wide the table is at least."""
        return sum(map(self._least, shown)) + BETWEEN * (len(shown) - 1)

    def _least(self, at: int) -> int:
        head, cells = self.heads[at], (printable(row[at]) for row in self.rows)
        widest = max(map(cell_len, cells), default=0)
        return max(cell_len(head), min(widest, LEAST_PROSE) if head in PROSE else widest)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Words beside each other, each of them whole on a line."""

    words: Sequence[Text]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield as many lines as a width asks for."""
        line = Text()
        for word in self.words:
            if line and line.cell_len + BETWEEN + word.cell_len > options.max_width:
                yield line
                line = Text()
            line = Text(" " * BETWEEN).join((line, word)) if line else word
        yield line


def printable(cell: str) -> str:
    """Return the text without what a terminal would obey: some of it is told by proxies."""
    if cell.isprintable():
        return cell
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cell)


def show(view: RenderableType) -> None:
    """Print for the terminal that there is; else as a script reads it: nothing folded, left out or padded."""
    terminal = Console()
    if terminal.is_terminal:
        terminal.print(view)
        return
    text = io.StringIO()
    Console(file=text, width=ENDLESS, soft_wrap=True, no_color=True).print(view)
    for line in text.getvalue().splitlines():
        console.line(line.rstrip())
