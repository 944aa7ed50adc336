"""What is wrong with a file, where, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Path = tuple[str | int, ...]  # keys and positions from the document's root
Level = Literal["error", "warning"]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake or warning; line and column count from 1, ``path`` is empty for a file or a document."""

    file: str
    line: int
    column: int
    path: str
    text: str
    level: Level = "error"

    def __str__(self) -> str:
        level = "warning: " if self.level == "warning" else ""
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {level}{path}{self.text}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of a document before its place in the file is known.

    ``at_key`` points at the key instead of the value; ``place`` is line and column where they are known.
    """

    path: Path
    text: str
    level: Level = "error"
    at_key: bool = False
    place: tuple[int, int] | None = None


def written(path: Path) -> str:
    """Return ``steps[2].everyone`` for ``('steps', 2, 'everyone')``."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, str) and _PLAIN_KEY.fullmatch(part):
            parts.append(f".{part}" if parts else part)
        else:
            parts.append(f"[{part!r}]" if len(str(part)) <= 80 else f"[{str(part)[:60]!r}…]")
    return "".join(parts)


def meant(word: str, known: Iterable[str], alike: float = 0.6) -> str:
    """Return ``; did you mean 'steps'?`` if one of the known words is close to ``word``, else nothing."""
    close = get_close_matches(word, known, n=1, cutoff=alike) if len(word) <= 64 else []
    return f"; did you mean {close[0]!r}?" if close else ""
