"""Who gets which version: the published model of what the rendered routes do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import xxhash

from controlplane.policy.documents import ANONYMOUS, FOLLOWED, UserSource
from controlplane.policy.segments import Request, matches
from controlplane.release.traffic import BUCKETS, ServiceTraffic, Split

USER_COOKIE = "turnout-user"  # holds the identity that Envoy generated


@dataclass(frozen=True, slots=True)
class Pick:
    """What happens to a request.

    Attributes:
        segment: The name it is counted under.
        version: The version that answers; None if that is drawn for this request alone.
        bucket: The user's bucket; None without identity.
    """

    segment: str
    version: str | None
    bucket: int | None


def bucket(salt: str, identity: str) -> int:
    """Return the user's bucket in 0..9999: ``xxh64(salt + ":" + identity, seed 0) % 10000`` over UTF-8."""
    return xxhash.xxh64_intdigest(f"{salt}:{identity}".encode(), seed=0) % BUCKETS


def sources(traffic: ServiceTraffic) -> tuple[UserSource, ...]:
    """Return where identities are looked for, in order; a generated one comes back as a cookie."""
    generated = (UserSource(cookie=USER_COOKIE),) if traffic.anonymous == "generate" else ()
    return traffic.service.user.from_ + generated


def identity(traffic: ServiceTraffic, request: Request) -> str | None:
    """Return who the user is, or None; the last value that is not empty counts, as in Envoy."""
    values = named(traffic, request)
    return values[-1] if values else None


def named(
    traffic: ServiceTraffic, request: Request, among: Sequence[UserSource] | None = None
) -> tuple[str, ...]:
    """Return the values, not empty, of the first source that has any; ``among`` are all, if not given."""
    for source in sources(traffic) if among is None else among:
        if found := tuple(value for value in _values(source, request) if value):
            return found
    return ()


def _values(source: UserSource, request: Request) -> tuple[str, ...]:
    if source.header:
        return request.header(source.header)
    if source.claim:
        return request.claim(source.claim)
    return request.query(source.query) if source.query else request.cookie(source.cookie or "")


def pick(traffic: ServiceTraffic, request: Request) -> Pick:
    """Return what the routes rendered from ``traffic`` do with a request, whatever its host and path.

    A user without identity who gets one generated is counted in the segment, like every later request.
    """
    user = identity(traffic, request)
    place = None if user is None else bucket(traffic.salt, user)
    request = replace(request, user=named(traffic, request), bucket=place)
    split = next(split for split in traffic.splits if matches(split.match, request))
    own = user is not None or traffic.anonymous == "generate"
    return Pick(counted(split, user=own), _version(traffic, split, place), place)


def counted(split: Split, *, user: bool) -> str:
    """Return the segment that a request is counted under, with an identity or without."""
    return split.segment if user or split.segment == FOLLOWED else ANONYMOUS


def whole(split: Split) -> bool:
    """Return whether all or none of the buckets go to the canary, so that no user's bucket matters."""
    return split.buckets in (0, BUCKETS)


def _version(traffic: ServiceTraffic, split: Split, place: int | None) -> str | None:
    if place is not None:
        chosen = any(start <= place < end for start, end in split.canary)
        return traffic.canary if chosen else traffic.stable
    if traffic.anonymous == "generate":
        return None if not whole(split) else traffic.canary if split.buckets else traffic.stable
    if split.drawn == BUCKETS:
        return traffic.canary
    return None if split.drawn and traffic.anonymous == "random" else traffic.stable
