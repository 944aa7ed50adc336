"""Regular expressions for a part of a header: a cookie, a query parameter, a path.

A part ends at a separator, so whatever an operator writes is rewritten to never match one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from controlplane.policy.documents import PathMatch, Range, ValueMatch

_DIGITS = 19  # of the longest number that is compared
_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


def escape(text: str) -> str:
    """Return a pattern for ``text`` itself, without backslashes where a class will do."""
    return "".join(
        c if c.isalnum() or c in " -_" or ord(c) > 127 else f"[{c}]" if c not in "^\\" else f"\\{c}"
        for c in text
    )


def part(match: ValueMatch | PathMatch, separator: str) -> str:
    """Return a pattern for parts that meet the condition, which is not one on being present.

    Raises:
        ValueError: If a regular expression has an anchor that cannot be moved into the header.
    """
    any_ = f"[^{separator}]*"
    match match.given:
        case "equals":
            return escape(match.equals or "")
        case "prefix":
            return f"{escape(match.prefix or '')}{any_}"
        case "suffix":
            return f"{any_}{escape(match.suffix or '')}"
        case "contains":
            return f"{any_}{escape(match.contains or '')}{any_}"
        case "regex":
            return f"(?:{confine(match.regex or '', separator)})"
        case _:
            assert isinstance(match, ValueMatch)
            assert match.range is not None
            return integers(match.range)


def confine(regex: str, separator: str) -> str:
    """Return ``regex`` rewritten so that it never matches the separator, and so never leaves the part."""
    tree = parser.parse(regex, re.ASCII)
    parts = list(tree)
    while parts and parts[0] in ((op.AT, op.AT_BEGINNING), (op.AT, op.AT_BEGINNING_STRING)):
        del parts[0]
    while parts and parts[-1] == (op.AT, op.AT_END):
        del parts[-1]
    flags = "".join(letter for letter, flag in (("i", re.I), ("s", re.S)) if tree.state.flags & flag)
    body = _write(parts, separator)
    return f"(?{flags}:{body})" if flags else body


def _write(parts: Iterable[tuple[Any, Any]], out: str) -> str:
    return "".join(_write_part(code, value, out) for code, value in parts)


def _write_part(code: Any, value: Any, out: str) -> str:  # noqa: PLR0911 - one per kind of node
    match code:
        case op.LITERAL:
            return escape(chr(value)) if value != ord(out) else _NOTHING
        case op.ANY | op.NOT_LITERAL:
            return f"[^{out}{_in_class(value)}]" if value not in (None, ord(out)) else f"[^{out}]"
        case op.IN:
            return _write_class(value, out)
        case op.BRANCH:
            return "(?:" + "|".join(_write(branch, out) for branch in value[1]) + ")"
        case op.SUBPATTERN:
            _, added, removed, inner = value
            on = "".join(letter for letter, flag in (("i", re.I), ("s", re.S)) if added & flag)
            off = "-i" if removed & re.I else ""
            return f"(?{on}{off}:{_write(inner, out)})"
        case op.MAX_REPEAT | op.MIN_REPEAT:
            low, high, inner = value
            most = "" if high is op.MAXREPEAT else high
            return f"(?:{_write(inner, out)}){{{low},{most}}}"
        case op.AT if value in (op.AT_BOUNDARY, op.AT_NON_BOUNDARY):
            return r"\b" if value is op.AT_BOUNDARY else r"\B"
        case _:
            raise ValueError("the regex of a part may have '^' and '$' at its very ends only")


_NOTHING = r"[^\x00-\xFF]"


def _in_class(code: int) -> str:
    if code > 127:
        raise ValueError("the regex of a part may not have characters beyond ASCII in a class")
    return chr(code) if chr(code).isalnum() else f"\\x{code:02X}"


def _write_class(items: list[tuple[Any, Any]], out: str) -> str:
    """Return the class as ranges of bytes without the separator; Envoy compares bytes."""
    negated = items[0][0] is op.NEGATE
    for kind, value in items:
        if kind in (op.LITERAL, op.RANGE):
            _in_class(value[1] if kind is op.RANGE else value)
    members = [code for code in range(128) if code != ord(out) and _is_in(items, code) is not negated]
    ranges: list[list[int]] = []
    for code in members:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    text = "".join(_in_class(low) + (f"-{_in_class(high)}" if high > low else "") for low, high in ranges)
    beyond = _is_in(items, 128) is not negated
    text += r"\x80-\xFF" if beyond else ""
    return f"[{text}]" if text else _NOTHING


def _is_in(items: list[tuple[Any, Any]], code: int) -> bool:
    for kind, value in items:
        if (
            (kind is op.LITERAL and value == code)
            or (kind is op.RANGE and value[0] <= code <= value[1])
            or (kind is op.CATEGORY and re.fullmatch(_CATEGORIES[value], chr(code), re.ASCII))
        ):
            return True
    return False


# --- whole numbers ----------------------------------------------------------------------------------------


def integers(bounds: Range) -> str:
    """Return a pattern for decimal numbers in ``bounds``; signs and leading zeros are allowed."""
    most = 10**_DIGITS - 1
    low, high = max(bounds.from_, -most), min(bounds.to - 1, most)
    parts = []
    if high >= 0 and low <= high:
        parts.append(f"[+]?0*{_digits(max(low, 0), high)}")
    if low <= 0 <= high:
        parts.append("-0+")
    if low < 0:
        parts.append(f"-0*{_digits(max(-high, 1), -low)}")
    return "(?:" + "|".join(parts) + ")"


def _digits(low: int, high: int) -> str:
    first, last = str(low), str(high)
    if len(first) == len(last):
        return _same_length(first, last)
    parts = [_same_length(first, "9" * len(first)), _same_length("1" + "0" * (len(last) - 1), last)]
    if len(last) - len(first) > 1:
        parts.append(f"[1-9][0-9]{{{len(first)},{len(last) - 2}}}")
    return "(?:" + "|".join(parts) + ")"


def _same_length(low: str, high: str) -> str:
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    parts = []
    if low[1:] != "0" * rest:
        parts.append(low[0] + _same_length(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        parts.append(high[0] + _same_length("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return "(?:" + "|".join(parts) + ")"
