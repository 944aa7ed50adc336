"""Regular expressions that operators write: what RE2, which Envoy uses, can run.

RE2 itself is not at hand here, so patterns are read by Python's parser and refused where the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_PATTERN = 256
MAX_PROGRAM = 500  # instructions; the bootstrap allows 1000, and the pattern of a part is wrapped in ours

_REFUSED = {
    op.ASSERT: "a lookahead or lookbehind",
    op.ASSERT_NOT: "a lookahead or lookbehind",
    op.ATOMIC_GROUP: "an atomic group",
    op.GROUPREF: "a backreference",
    op.GROUPREF_EXISTS: "a conditional group",
    op.POSSESSIVE_REPEAT: "a possessive repeat",
}
_STARTS = ((op.AT, op.AT_BEGINNING), (op.AT, op.AT_BEGINNING_STRING))
_TOKEN = re.compile(r"(?P<other>\\Z|\(\?[#aLux]|\[\[)|\\.|.", re.DOTALL)  # ``other``: Python's, not RE2's
_UTF8 = 12  # instructions for "any character that is not ASCII"


def check_pattern(pattern: str) -> str:
    """Return ``pattern`` if Envoy can run it; it is matched against the whole value.

    Raises:
        ValueError: If it is not a regular expression, or not one of RE2, or too large for Envoy.
    """
    if not 0 < len(pattern) <= MAX_PATTERN:
        raise ValueError(f"has {len(pattern)} characters; a regex has 1 to {MAX_PATTERN}")
    for token in _TOKEN.finditer(pattern):
        if token["other"]:
            raise ValueError(f"has {token['other']!r}, which RE2, the engine of Envoy, reads differently")
    try:
        tree = parser.parse(pattern, re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    if (size := _size(tree)) > MAX_PROGRAM:
        raise ValueError(
            f"is too large for Envoy: about {size} instructions, at most {MAX_PROGRAM}; repeat less"
        )
    return pattern


def check_inner_pattern(pattern: str) -> str:
    """Return ``pattern`` if it can be written into a pattern for a whole header: of a cookie, of a path.

    Raises:
        ValueError: As ``check_pattern``, or if it has an anchor that would be the header's.
    """
    parts = list(parser.parse(check_pattern(pattern), re.ASCII))
    while parts and parts[0] in _STARTS:
        del parts[0]
    while parts and parts[-1] == (op.AT, op.AT_END):
        del parts[-1]
    if _anchored(parts):
        raise ValueError("has '^' or '$' inside; the regex of a part may have them at its very ends only")
    return pattern


def _anchored(node: Any) -> bool:
    if isinstance(node, tuple) and node[:1] == (op.AT,):
        return node[1] not in (op.AT_BOUNDARY, op.AT_NON_BOUNDARY)
    return isinstance(node, list | tuple | parser.SubPattern) and any(_anchored(part) for part in node)


def _size(tree: Iterable[tuple[Any, Any]]) -> int:
    """Estimate the size of RE2's program; repeats are written out there."""
    return sum(_part_size(code, value) for code, value in tree)


def _part_size(code: Any, value: Any) -> int:
    if code in _REFUSED:
        raise ValueError(f"has {_REFUSED[code]}, which RE2, the engine of Envoy, cannot run")
    if code in (op.MAX_REPEAT, op.MIN_REPEAT):
        low, high, inner = value
        if max(low, 0 if high is op.MAXREPEAT else high) > 1000:
            raise ValueError("repeats more than 1000 times, which RE2, the engine of Envoy, refuses")
        times = max(low, 1) if high is op.MAXREPEAT else high
        return int(times) * (_size(inner) + 1)
    if code is op.SUBPATTERN:
        return 2 + _size(value[-1])
    if code is op.BRANCH:
        return sum(_size(branch) + 1 for branch in value[1])
    if code is op.IN:
        return len(value) + (_UTF8 if value[0][0] is op.NEGATE else 0)
    return _UTF8 if code in (op.ANY, op.NOT_LITERAL) else 1
