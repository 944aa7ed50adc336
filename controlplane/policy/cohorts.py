"""Cohorts inside of conditions, taken apart: which requests, and for them, which buckets.

Envoy chooses by a user's bucket only after it has chosen a route by the rest of the request. So a tree with
cohorts becomes pieces, each a condition without them and the buckets for which that is what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

from controlplane.policy.documents import Cohort, Match
from controlplane.policy.segments import cohorts, parts
from controlplane.policy.values import PPM, STEP_PPM

BUCKETS: Final = 10_000  # constant weight sum: one bucket is 0.01 %
MAX_CONDITIONS = 4  # beside cohorts, in all rules of a policy: any of them may hold together

Span = tuple[int, int]  # buckets from, up to and not including
ALL: Final[tuple[Span, ...]] = ((0, BUCKETS),)


@dataclass(frozen=True, slots=True)
class Piece:
    """Requests, and the buckets of those users among them who are in the segment.

    Attributes:
        match: A condition without cohorts; None for every request.
        spans: Sorted and disjoint.
    """

    match: Match | None
    spans: tuple[Span, ...]


def pieces(match: Match | None) -> tuple[Piece, ...]:
    """Return pieces whose union is the segment; a request may be in several, of disjoint buckets."""
    if match is None or not cohorts(match):
        return (Piece(match, ALL),)
    edges = sorted({0, BUCKETS, *_edges(match)})
    found: dict[Match | None, list[Span]] = {}
    for start, end in pairwise(edges):
        left = _assume(match, partial(_has, start))
        if left is not False:
            found.setdefault(None if left is True else left, []).append((start, end))
    return tuple(Piece(left, union(spans)) for left, spans in found.items())


def without_identity(match: Match | None) -> Match | bool:
    """Return what is left of a condition for requests without identity, which are in no cohort."""
    return True if match is None else _assume(match, lambda _: False)


def conditions(matches: Iterable[Match]) -> int:
    """Return how many different conditions stand beside cohorts, and so may hold in any combination."""
    found: set[Match] = set()
    for match in filter(cohorts, matches):
        found |= {piece.match for piece in pieces(match) if piece.match is not None}
        left = without_identity(match)
        found |= {left} if isinstance(left, Match) else set()
    return len(found)


def union(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same buckets, sorted and disjoint."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def first(spans: Iterable[Span], count: int) -> tuple[Span, ...]:
    """Return the first ``count`` buckets of sorted, disjoint spans."""
    found = []
    for start, end in spans:
        found.append((start, min(end, start + count)))
        count -= found[-1][1] - start
    return tuple(span for span in found if span[0] < span[1])


def minus(spans: Iterable[Span], others: Iterable[Span]) -> tuple[Span, ...]:
    """Return the buckets of sorted, disjoint spans that are not in the others, which are so too."""
    left = list(spans)
    for low, high in others:
        left = [part for start, end in left for part in ((start, min(end, low)), (max(start, high), end))]
    return union(left)


def size(spans: Iterable[Span]) -> int:
    """Return how many buckets there are."""
    return sum(end - start for start, end in spans)


def _has(bucket: int, cohort: Cohort) -> bool:
    return cohort.from_ <= bucket * STEP_PPM < cohort.to


def _edges(match: Match) -> Iterator[int]:
    if match.cohort:
        yield match.cohort.from_ // STEP_PPM
        yield min(match.cohort.to, PPM) // STEP_PPM
    for part in parts(match):
        yield from _edges(part)


def _assume(match: Match, holds: Callable[[Cohort], bool]) -> Match | bool:
    """Return what is left of a condition if its cohorts are known to hold or not."""
    if match.cohort is not None:
        return holds(match.cohort)
    if match.not_ is not None:
        left = _assume(match.not_, holds)
        return not left if isinstance(left, bool) else match if left == match.not_ else Match(not_=left)
    if match.all is None and match.any is None:
        return match
    decisive = match.any is not None  # one part that is so decides
    left_parts = [_assume(part, holds) for part in match.all or match.any or ()]
    if any(part is decisive for part in left_parts):
        return decisive
    open_ = tuple(dict.fromkeys(part for part in left_parts if isinstance(part, Match)))
    if len(open_) < 2:
        return open_[0] if open_ else not decisive
    return Match(any=open_) if decisive else Match(all=open_)
