"""Rules of a policy to groups of requests, each with the buckets of users who get the canary.

Envoy tries routes in order, so the groups are in order too: the first that a request matches is its own. A
request gets the largest share of all rules that it matches. Shares without cohorts are nested, and one group
for each rule is enough. What cohorts add is not nested: each combination of conditions beside cohorts is a
group of its own, unless it comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from controlplane.policy.cohorts import (
    ALL,
    BUCKETS,
    Piece,
    Span,
    first,
    minus,
    pieces,
    size,
    union,
    without_identity,
)
from controlplane.policy.documents import EVERYONE, Match
from controlplane.policy.pinned import PinnedPolicy
from controlplane.policy.segments import cohorts
from controlplane.policy.values import STEP_PPM
from controlplane.release.memo import Same


@dataclass(frozen=True, slots=True)
class Split:
    """One group of requests of a service and the buckets in it that go to the canary.

    Attributes:
        segment: Its name in statistics.
        match: Which requests, without cohorts; None for every request.
        canary: Sorted, disjoint spans of buckets; ``((0, BUCKETS),)`` sends all users.
        anonymous: How many of the BUCKETS go there of requests without identity; None if as of users.
    """

    segment: str
    match: Match | None
    canary: tuple[Span, ...]
    anonymous: int | None = None

    @property
    def buckets(self) -> int:
        """How many of the BUCKETS go to the canary."""
        return size(self.canary)

    @property
    def drawn(self) -> int:
        """How many of the BUCKETS go to the canary of requests without identity."""
        return self.buckets if self.anonymous is None else self.anonymous


@dataclass(frozen=True, slots=True)
class _Rule:
    """A segment and its share; share 0 keeps it on the baseline, whatever other rules say.

    ``plain`` is one without cohorts but with a condition; ``rest`` is what is left of it without identity.
    """

    segment: str
    match: Match | None
    share: int
    pieces: tuple[Piece, ...]
    rest: Match | bool
    plain: bool


def _rule(segment: str, match: Match | None, share: int) -> _Rule:
    plain = match is not None and not cohorts(match)
    return _Rule(segment, match, share, pieces(match), without_identity(match), plain)


@dataclass(frozen=True, slots=True)
class InForce:
    """The splits in force at a step.

    Attributes:
        splits: All of them, in order.
        shares: By segment: the canary's share of its users, in 0..1.
        own: The split by which the step shows: its segment's, else everyone's.
    """

    splits: tuple[Split, ...]
    shares: Mapping[str, float]
    own: Split


Held = frozenset[Match]  # conditions beside cohorts that hold for a request


def splits(policy: PinnedPolicy, step: int) -> tuple[Split, ...]:
    """Return the splits in force at a step; -1 is before the first, the number of steps is the guard.

    Rules stay once they were reached, so shares only grow; the guard after an A/B test is for everyone. Each
    group gets its own share or the share of everyone, whichever is larger; the last ``hold_back`` buckets
    stay with the baseline, except in a segment that is wanted whole. What is held out or excluded stays with
    the baseline, whatever else it matches.
    """
    return in_force(policy, step).splits


def in_force(policy: PinnedPolicy, step: int) -> InForce:
    """Return :func:`splits` of a step, and what is asked of them."""
    return _in_force(Same(policy), step)


# A release asks several times in each interval, and the answer stays the same for a whole step.
@lru_cache(maxsize=1024)
def _in_force(same: Same, step: int) -> InForce:
    found = _splits(same.policy, step)
    by_segment = {split.segment: split for split in found}
    shares = {split.segment: split.buckets / BUCKETS for split in found}
    return InForce(found, shares, by_segment.get(_shown(same.policy, step), by_segment[EVERYONE]))


def _shown(policy: PinnedPolicy, step: int) -> str:
    """Return the segment by which a step shows."""
    if step < 0 or (policy.ends is not None and step >= len(policy.steps)):
        return EVERYONE
    return policy.steps[min(step, len(policy.steps) - 1)].segment


def _splits(policy: PinnedPolicy, step: int) -> tuple[Split, ...]:
    if step < 0:
        return (Split(EVERYONE, None, ()),)
    current = policy.steps[min(step, len(policy.steps) - 1)]
    kept = {s.name: _rule(s.name, s.match, 0) for s in (*policy.hold_out, *current.exclude)}
    shared = {s.segment: _rule(s.segment, s.match, s.share // STEP_PPM) for s in policy.steps[: step + 1]}
    if policy.ends is not None and step >= len(policy.steps):
        # What an A/B test has shown to be better everyone gets, to be watched in the guard.
        shared[EVERYONE] = _rule(EVERYONE, None, BUCKETS)
    rules = [*kept.values(), *(rule for name, rule in shared.items() if name not in kept)]
    table = _Table(rules, BUCKETS - policy.guard.hold_back // STEP_PPM)
    plain = [rule for rule in rules if rule.plain]
    # Who is kept comes first; then the largest share.
    plain.sort(key=lambda rule: (rule.share > 0, -size(table.canary(rule, frozenset())), rule.segment))
    return tuple(split for rule in (*plain, None) for split in table.group(rule))


class _Table:
    """What the rules of a step come to for any request."""

    def __init__(self, rules: list[_Rule], limit: int) -> None:
        self._rules = rules
        self._limit = limit
        self._mixed = [rule for rule in rules if not rule.plain]
        self._names = dict(_names(self._mixed))

    def group(self, own: _Rule | None) -> Iterator[Split]:
        """Yield the splits of requests whose first plain rule is ``own``, most conditions first."""
        kept: list[tuple[Held, Split]] = []
        for count in range(len(self._names) + 1):
            level = []
            for held in map(frozenset, combinations(self._names, count)):
                split = self._split(own, held)
                # Without a split of its own, such a request meets the first that asks for less.
                fallback = next((s for names, s in kept if names < held), None)
                if fallback is None or _effect(fallback) != _effect(split):
                    level.append((held, split))
            kept = level + kept
        yield from (split for _, split in kept)

    def _split(self, own: _Rule | None, held: Held) -> Split:
        matches = [*([own.match] if own and own.match else []), *(m for m in self._names if m in held)]
        names = [*([own.segment] if own else []), *(self._names[m] for m in self._names if m in held)]
        match = matches[0] if len(matches) == 1 else Match(all=tuple(matches)) if matches else None
        canary, drawn = self.canary(own, held), self._drawn(own, held)
        same = drawn == size(canary)
        return Split("+".join(names) or EVERYONE, match, canary, None if same else drawn)

    def canary(self, own: _Rule | None, held: Held) -> tuple[Span, ...]:
        """Return the buckets of users who get the canary."""
        given: list[Span] = []
        taken: list[Span] = []
        for rule in self._applying(own):
            spans = _holding(rule, held)
            if not rule.share:
                taken += spans
            elif spans == ALL and rule.share == BUCKETS and rule.match is not None:
                given += ALL
            elif spans:
                count = max(1, size(spans) * rule.share // BUCKETS)
                given += minus(first(spans, count), [(self._limit, BUCKETS)])
        return minus(union(given), union(taken))

    def _drawn(self, own: _Rule | None, held: Held) -> int:
        """Return the canary's share of requests without identity."""
        largest = 0
        for rule in self._applying(own):
            left = True if rule.plain else rule.rest
            if left is True or left in held:
                if not rule.share:
                    return 0
                whole = rule.share == BUCKETS and rule.match is not None
                largest = max(largest, BUCKETS if whole else min(rule.share, self._limit))
        return largest

    def _applying(self, own: _Rule | None) -> Iterable[_Rule]:
        return (*self._mixed, own) if own else self._mixed


def _holding(rule: _Rule, held: Held) -> tuple[Span, ...]:
    """Return the buckets of users who are in the segment."""
    holding = (piece for piece in rule.pieces if rule.plain or piece.match is None or piece.match in held)
    return union(span for piece in holding for span in piece.spans)


def _effect(split: Split) -> tuple[tuple[Span, ...], int]:
    return split.canary, split.drawn


def _names(rules: Iterable[_Rule]) -> Iterator[tuple[Match, str]]:
    """Yield the conditions beside cohorts, with a name; of several in a segment, later ones are numbered."""
    told: set[Match] = set()
    for rule in rules:
        found = [*(piece.match for piece in rule.pieces), rule.rest if isinstance(rule.rest, Match) else None]
        new = [match for match in dict.fromkeys(found) if match is not None and match not in told]
        told.update(new)
        for number, match in enumerate(new, 1):
            yield match, rule.segment if number == 1 else f"{rule.segment}~{number}"
