"""What becomes of a request, by the published model, in words: service, rule, bucket, version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from controlplane.policy.cohorts import Span
from controlplane.policy.documents import ANONYMOUS, FOLLOWED, Claim, UserSource
from controlplane.policy.segments import Request, matches
from controlplane.policy.values import STEP_PPM, format_share
from controlplane.release.traffic import BUCKETS, ServiceTraffic
from controlplane.resources.buckets import bucket, identity, named, pick, sources


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to a request.

    Attributes:
        traffic: The service that claims its host and path, as it is treated now.
        claim: Which of its claims.
        rule: Number, from 1, of the first split that the request matches.
        segment: What it is counted under.
        share: The canary's buckets in that split, for a request like this.
        user: Its identity; None without.
        source: Where that was found.
        bucket: None without identity.
        version: None if it is drawn for this request alone.
        because: In one sentence.
    """

    traffic: ServiceTraffic
    claim: Claim
    rule: int
    segment: str
    share: int
    spans: tuple[Span, ...]
    user: str | None
    source: str | None
    bucket: int | None
    version: str | None
    because: str


def explain(traffics: Iterable[ServiceTraffic], request: Request) -> Explanation | None:
    """Return what a proxy does with a request; None if no service claims it.

    Raises:
        ValueError: If nobody can tell who the user is.
    """
    found = owner(traffics, request)
    if found is None:
        return None
    traffic, claim = found
    _check_identity(traffic, request)
    user = identity(traffic, request)
    place = None if user is None else bucket(traffic.salt, user)
    known = replace(request, user=named(traffic, request), bucket=place)
    number, split = next(
        (number, split) for number, split in enumerate(traffic.splits, 1) if matches(split.match, known)
    )
    choice = pick(traffic, request)
    users = user is not None or traffic.anonymous == "generate"
    drawn = 0 if traffic.anonymous == "baseline" and split.drawn < BUCKETS else split.drawn
    share = split.buckets if users else drawn
    because = _because(traffic, split.segment, share, place, choice.version)
    return Explanation(
        traffic=traffic,
        claim=claim,
        rule=number,
        segment=choice.segment,
        share=share,
        spans=split.canary if users else ((0, share),) if share else (),
        user=user,
        source=_source(traffic, request),
        bucket=place,
        version=choice.version,
        because=because,
    )


def owner(traffics: Iterable[ServiceTraffic], request: Request) -> tuple[ServiceTraffic, Claim] | None:
    """Return the service that claims a request: the most exact host, then the longest path."""
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    path = request.path.partition("?")[0]
    claims = [(traffic, claim) for traffic in traffics for claim in traffic.service.routes]
    hosts = {claim.host for _, claim in claims if _is_below(claim.host, host.lower())}
    if not hosts:
        return None
    best = max(hosts, key=lambda known: (not known.startswith("*"), len(known)))
    found = [one for one in claims if one[1].host == best and _is_under(one[1].path, path)]
    return max(found, key=lambda one: len(one[1].path), default=None)


def _is_below(claimed: str, host: str) -> bool:
    if claimed == "*":
        return True
    if claimed.startswith("*."):
        return host.endswith(claimed[1:]) and len(host) > len(claimed) - 1
    return host == claimed


def _is_under(claimed: str, path: str) -> bool:
    return path.startswith(claimed) if claimed.endswith("/") else f"{path}/".startswith(f"{claimed}/")


def _check_identity(traffic: ServiceTraffic, request: Request) -> None:
    for source in sources(traffic):
        header = source.header or ("cookie" if source.cookie else "")
        if header and len(request.header(header)) > 1:
            raise ValueError(f"{header!r} stands in several lines; who the user is can be told of one only")


def _source(traffic: ServiceTraffic, request: Request) -> str | None:
    found = (source for source in sources(traffic) if named(traffic, request, (source,)))
    return next((described(source) for source in found), None)


def described(source: UserSource) -> str:
    """Return a source as operators write it."""
    kind = source.given
    return f"{kind} {getattr(source, kind)}"


def _because(
    traffic: ServiceTraffic, segment: str, share: int, place: int | None, version: str | None
) -> str:
    whole = f"{format_share(share * STEP_PPM)} of segment {segment!r} get {traffic.canary}"
    if traffic.canary is None:
        return f"no release is in progress, so {traffic.stable} has every request"
    if segment == FOLLOWED:
        told = traffic.service.version_header
        return f"another release of its group has decided, and says so in {told}: it follows to {version}"
    if place is not None:
        return f"{whole}; bucket {place} is {'one' if version == traffic.canary else 'none'} of theirs"
    if version is None and traffic.anonymous == "generate":
        return f"{whole}; a user is made up for this request, and keeps the version by a cookie"
    if version is None:
        return f"{whole}; it names no user, so the version is drawn for each request"
    return f"{whole}, counted as {ANONYMOUS}: it names no user"
