"""Whether a request is in a segment, by the same rules as in Envoy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from controlplane.policy.documents import Cohort, Match, ValueMatch
from controlplane.policy.values import STEP_PPM

_INTEGER = re.compile(r"([-+]?)0*([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Request:
    """What a request says about itself.

    Attributes:
        headers: Lines as (lower-case name, value), repeated names as often as they came.
        bucket: The user's bucket in 0..9999; None without identity.
    """

    method: str = "GET"
    host: str = ""
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    bucket: int | None = None

    def header(self, name: str) -> tuple[str, ...]:
        """Return the values of all lines of a header."""
        return tuple(value for key, value in self.headers if key == name)

    def cookie(self, name: str) -> tuple[str, ...]:
        """Return the values of a cookie, from all ``cookie`` lines; quotes are part of a value."""
        pairs = (pair.strip(" ").partition("=") for line in self.header("cookie") for pair in line.split(";"))
        return tuple(value for key, sign, value in pairs if key == name and sign)


def matches(match: Match | None, request: Request) -> bool:  # one per kind of condition
    """Return whether ``request`` is in the segment; None means every request.

    A header or cookie that stands several times matches if any of its values does. ``not`` is the logical
    opposite, so an absent header is outside of any condition and inside of its ``not``.
    """
    if match is None:
        return True
    if match.all or match.any:
        results = (matches(part, request) for part in match.all or match.any or ())
        return all(results) if match.all else any(results)
    if match.not_:
        return not matches(match.not_, request)
    if match.header:
        return _any_matches(match.header, request.header(match.header.name))
    if match.cookie:
        return _any_matches(match.cookie, request.cookie(match.cookie.name))
    return match.cohort is not None and _chosen(match.cohort, request.bucket)


def _chosen(cohort: Cohort, bucket: int | None) -> bool:
    return bucket is not None and cohort.from_ <= bucket * STEP_PPM < cohort.to


def alternatives(match: Match, inverted: bool = False) -> int:
    """Return how many plain conjunctions the tree expands to; each of them is a route of its own."""
    if match.not_:
        return alternatives(match.not_, not inverted)
    if inverted and match.header and match.header.regex and _compiled(match.header.regex).fullmatch(""):
        return 2  # without the header, and with another value: Envoy takes an absent header for an empty one
    parts = [alternatives(part, inverted) for part in match.all or match.any or ()]
    if bool(match.any) is not inverted:
        return sum(parts) or 1
    product = 1
    for count in parts:
        product *= count
    return product


def cohorts(match: Match) -> bool:
    """Return whether a cohort stands anywhere in the tree."""
    return match.cohort is not None or any(cohorts(part) for part in _parts(match))


def headers(match: Match) -> Iterator[str]:
    """Yield the names of the headers in the tree."""
    if match.header:
        yield match.header.name
    for part in _parts(match):
        yield from headers(part)


def _parts(match: Match) -> tuple[Match, ...]:
    return match.all or match.any or ((match.not_,) if match.not_ else ())


def _any_matches(condition: ValueMatch, values: tuple[str, ...]) -> bool:
    if condition.present is not None:
        return bool(values) is condition.present
    return any(_holds(condition, value) for value in values)


def _holds(condition: ValueMatch, value: str) -> bool:
    match condition.condition:
        case "equals":
            return value == condition.equals
        case "prefix":
            return value.startswith(condition.prefix or "")
        case "suffix":
            return value.endswith(condition.suffix or "")
        case "contains":
            return (condition.contains or "") in value
        case "regex":
            return _compiled(condition.regex or "").fullmatch(value) is not None
        case _:
            bounds = condition.range
            assert bounds is not None
            number = _INTEGER.fullmatch(value)
            return number is not None and bounds.from_ <= int(number[1] + number[2]) < bounds.to


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)
