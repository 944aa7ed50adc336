"""Who of some users is in the canary, and what anyone needs to work that out: salt, formula, spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from controlplane.policy.cohorts import Span
from controlplane.policy.documents import EVERYONE
from controlplane.policy.segments import Request, matches
from controlplane.release.splits import Split
from controlplane.resources.buckets import bucket

FORMULA: Final = 'xxh64(salt + ":" + user, seed 0) % 10000'


@dataclass(frozen=True, slots=True)
class Member:
    """One user.

    Attributes:
        segment: The group that the user's requests are in.
        canary: Whether they go to the new version.
    """

    user: str
    bucket: int
    segment: str
    canary: bool


def members(splits: Iterable[Split], salt: str, users: Iterable[str], segment: str) -> Iterator[Member]:
    """Yield what users get whose requests are in a segment; lists of users are looked up.

    Raises:
        KeyError: If there is no such segment.
    """
    known = {split.segment: split for split in splits}
    chosen = known[segment]
    if chosen.match is not None and chosen.match.users:
        chosen = known[EVERYONE]  # who is not listed is not in it
    for user in users:
        place = bucket(salt, user)
        request = Request(user=(user,), bucket=place)
        listed = (s for s in known.values() if s.match is not None and s.match.users)
        split = next((s for s in listed if matches(s.match, request)), chosen)
        yield Member(user, place, split.segment, _has(split.canary, place))


def _has(spans: Iterable[Span], place: int) -> bool:
    return any(start <= place < end for start, end in spans)
