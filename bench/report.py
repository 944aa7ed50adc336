"""Tables on standard output, a line as soon as it is known."""

from __future__ import annotations


def say(text: str) -> None:
    """Print a line of words."""
    print(text, flush=True)  # noqa: T201


def section(title: str) -> None:
    """Start a part of the report."""
    say(f"\n{title}")


class Table:
    """Columns of fixed widths, the first aligned to the left."""

    def __init__(self, columns: tuple[str, ...], *, widths: tuple[int, ...]) -> None:
        self._widths = widths
        self.row(*columns)

    def row(self, *cells: object) -> None:
        """Print one row."""
        first, *rest = (str(cell) for cell in cells)
        line = f"  {first:<{self._widths[0]}}"
        line += "".join(f" {cell:>{width - 1}}" for cell, width in zip(rest, self._widths[1:], strict=True))
        say(line.rstrip())

    def note(self, text: str) -> None:
        """Print a line of words below a row."""
        say(f"  {text}")
