"""Networks as regular expressions over the text of an address, as Envoy writes it.

No route matcher of Envoy knows the client's address. A header has its text, in the canonical form: no leading
zeros, small letters, the longest run of two or more zero groups as ``::``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from controlplane.resources.regexes import escape

_GROUPS = 8
_BITS = 16
_GROUP = "[0-9a-f]{1,4}"
_OCTET = "[0-9]{1,3}"
_ALL = {10: 255, 16: 65535}

Bounds = tuple[int, int]  # of one group or octet, both included


def network(text: str) -> str:
    """Return a pattern for the addresses of a network, the last in a list of those that it came through."""
    found = ipaddress.ip_network(text)
    if found.num_addresses == 1:
        body = escape(str(found.network_address))
    elif found.version == 4:
        body = "[.]".join(_number(*bounds, 10) for bounds in _bounds(found, 8, 4))
    else:
        body = "|".join(dict.fromkeys(_written(_bounds(found, _BITS, _GROUPS), found.prefixlen)))
    return f"(?i)(?:.*,)? *(?:{body}) *"


def _bounds(found: ipaddress.IPv4Network | ipaddress.IPv6Network, bits: int, count: int) -> list[Bounds]:
    first, last = int(found.network_address), int(found.broadcast_address)
    mask = (1 << bits) - 1
    return [(first >> shift & mask, last >> shift & mask) for shift in range(bits * (count - 1), -1, -bits)]


def _written(groups: list[Bounds], length: int) -> Iterator[str]:
    """Yield the ways in which an address may be written, by where its ``::`` begins and ends."""
    fixed = -(-length // _BITS)  # groups that the prefix reaches
    yield _plain(groups[:fixed], fixed)
    for start in range(fixed):
        end = start
        while end < fixed and groups[end][0] == 0:
            end += 1
            if end - start < 2 and end < fixed:
                continue  # one group of zeros is written out
            left = ":".join(_number(*bounds, 16) for bounds in groups[:start])
            if end == fixed:
                free = _GROUPS - max(end, start + 2)
                more = f"(?:{_GROUP}(?::{_GROUP}){{0,{free - 1}}})?" if free > 0 else ""
                yield f"{left}::{more}"
            else:
                right = [_number(*bounds, 16) for bounds in groups[end:fixed]]
                yield f"{left}::{':'.join([*right, *[_GROUP] * (_GROUPS - fixed)])}"


def _plain(groups: list[Bounds], fixed: int) -> str:
    """Return a pattern for addresses whose ``::``, if any, begins after the prefix."""
    text = ":".join(_number(*bounds, 16) for bounds in groups)
    if fixed == _GROUPS:
        return text
    return f"{text}:[0-9a-f:]+" if fixed else "[0-9a-f:]+"


def _number(low: int, high: int, base: int) -> str:
    """Return a pattern for whole numbers from ``low`` to ``high``, without leading zeros."""
    if (low, high) == (0, _ALL[base]):
        return _OCTET if base == 10 else _GROUP
    first, last = _digits(low, base), _digits(high, base)
    parts = []
    for length in range(len(first), len(last) + 1):
        bottom = first if length == len(first) else [1] + [0] * (length - 1)
        top = last if length == len(last) else [base - 1] * length
        parts.append(_same_length(bottom, top, base))
    return parts[0] if len(parts) == 1 and "|" not in parts[0] else f"(?:{'|'.join(parts)})"


def _digits(number: int, base: int) -> list[int]:
    found = [number % base]
    while number := number // base:
        found.insert(0, number % base)
    return found


def _same_length(low: list[int], high: list[int], base: int) -> str:
    if not low:
        return ""
    zeros, nines = [0] * (len(low) - 1), [base - 1] * (len(low) - 1)
    if low[0] == high[0]:
        rest = _same_length(low[1:], high[1:], base)
        return f"{low[0]:x}" + (f"(?:{rest})" if "|" in rest else rest)
    first, last, parts = low[0], high[0], []
    if low[1:] != zeros:
        rest = _same_length(low[1:], nines, base)
        parts.append(f"{first:x}" + (f"(?:{rest})" if "|" in rest else rest))
        first += 1
    if high[1:] != nines:
        rest = _same_length(zeros, high[1:], base)
        parts.append(f"{last:x}" + (f"(?:{rest})" if "|" in rest else rest))
        last -= 1
    if first <= last:
        any_ = "[0-9]" if base == 10 else "[0-9a-f]"
        parts.insert(0, _digit(first, last) + any_ * (len(low) - 1))
    return "|".join(parts)


def _digit(low: int, high: int) -> str:
    if low == high:
        return f"{low:x}"
    if high < 10 or low > 9:
        return f"[{low:x}-{high:x}]"
    return f"[{low}-9a-{high:x}]"
