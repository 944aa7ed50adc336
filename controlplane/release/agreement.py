"""Whether the split that is seen is the one that was asked for.

Source: DESIGN "How a release runs", verify.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from controlplane.evidence.crowd import Crowd
from controlplane.evidence.reading import rough
from controlplane.evidence.shares import Lately
from controlplane.evidence.split import EXPECTED, LATE, Agreement, SplitVerdict, check_split, usual
from controlplane.policy.documents import ANONYMOUS, EVERYONE, FOLLOWED, UNCOMPARED
from controlplane.policy.values import format_duration
from controlplane.release.arrivals import ALL, step_split
from controlplane.release.state import ReleaseState
from controlplane.release.traffic import BUCKETS, in_force
from controlplane.release.watch import Watch

_ELSEWHERE = {
    FOLLOWED: "follow another release of the group, and count there",
    ANONYMOUS: "have no identity by the service's `user`, and are not compared",
}


@dataclass(frozen=True, slots=True)
class SplitSeen:
    """How the observed split compares with the one asked for, in the present step.

    ``problem`` names a proxy and segment where it disagrees, else ''. ``agrees`` once enough was seen in the
    step's own segment; until then ``missing`` says what is.
    """

    problem: str = ""
    agrees: bool = False
    missing: str = ""


class Clock(NamedTuple):
    """When the requests of a step are counted.

    Attributes:
        settle: From so long after every proxy has it on.
        interval: The present one, which may be the first of them.
    """

    settle: timedelta = timedelta(0)
    interval: timedelta = timedelta(0)


AT_ONCE = Clock()


@dataclass(frozen=True, slots=True)
class Routes:
    """By which shares requests came to the versions in an interval, and what is seen of that.

    Attributes:
        split: Whether they came as asked.
        shares: The canary's, in 0..1, by segment.
        segment: By which the step shows.
        missed: Calls of gRPC clients that the canary may have missed, as in `Watch`.
    """

    split: SplitSeen = SplitSeen(missing="requests were not divided")
    shares: Mapping[str, float] = field(default_factory=dict)
    segment: str = EVERYONE
    missed: Mapping[str, int] = field(default_factory=dict)


def routes(watch: Watch, state: ReleaseState, crowd: Crowd, clock: Clock, unacked: Collection[str]) -> Routes:
    """Return what is seen of a release's own routes; arguments as in `split_seen`."""
    split = split_seen(watch, state, crowd, clock, unacked)
    shares = in_force(state.policy, state.step).shares
    return Routes(split, shares, step_split(state).segment, watch.missed)


def split_seen(
    watch: Watch,
    state: ReleaseState,
    crowd: Crowd,
    clock: Clock = AT_ONCE,
    unacked: Collection[str] = (),
) -> SplitSeen:
    """Compare per proxy and segment, and over all proxies for the segment of the step.

    ``state`` is that before the interval, ``crowd`` says how far heavy users may move a share, ``unacked``
    who has not acknowledged what it should have now, as one that came back with something else.

    Source: DESIGN "How a release runs", verify.
    """
    shares = in_force(state.policy, state.step).shares
    whole = sum(row[0] + row[2] for (_, segment), row in watch.step.items() if segment not in UNCOMPARED)
    for (proxy, segment), (all_canary, _, all_baseline, _) in sorted(watch.step.items()):
        lately = watch.split.get((proxy, segment))
        if segment in shares and lately is not None:
            canary, baseline, *older = lately.row
            if usual(shares[segment], canary, baseline):
                continue
            crowding = crowd.within((all_canary + all_baseline) / whole)
            older_of = older[0], older[1]
            verdict = check_split(shares[segment], canary, baseline, older=older_of, crowding=crowding)
            if verdict.agreement is Agreement.DISAGREES:
                acked = "has not acknowledged and" if proxy in unacked else "acknowledged but"
                where = f"{proxy} {acked} does not split as asked, segment {segment}"
                few = "" if proxy in unacked else _few(verdict, state)
                return SplitSeen(f"{where}: {verdict.reason}{few}")
    split = step_split(state)
    rows = [counts for (_, segment), counts in watch.step.items() if segment == split.segment]
    requests = sum(row[0] + row[2] for row in rows)
    crowding = crowd.within(requests / max(whole, 1))
    canary, baseline, *older = watch.split.get((ALL, split.segment), Lately()).row
    share = split.buckets / BUCKETS
    verdict = check_split(share, canary, baseline, LATE * len(rows), crowding, (older[0], older[1]))
    match verdict.agreement:
        case Agreement.AGREES:
            return SplitSeen(agrees=True)
        case Agreement.DISAGREES:
            return SplitSeen(f"segment {split.segment}: {verdict.reason}{_few(verdict, state)}")
        case Agreement.TOO_FEW:
            since = state.elapsed + clock.interval - clock.settle
            due = _until(share, canary + baseline, since)
            if not canary + baseline:
                due = _counted(state, clock.settle, since)
            return SplitSeen(missing=f"segment {split.segment}: {verdict.reason}{due}{_elsewhere(watch)}")


def _few(verdict: SplitVerdict, state: ReleaseState) -> str:
    """Say that a few large users may be why, how that is seen, and what goes on then."""
    if not verdict.perhaps_few:
        return ""
    name = state.name
    see = f"`turnout cohort {name} --users FILE` says who is in"
    return f"; or a few users send that much: {see}, `turnout advance {name}` goes on all the same"


def _until(share: float, requests: int, since: timedelta) -> str:
    """Say how long it takes until a split can be verified, if requests go on to come as they have."""
    more = EXPECTED / share - requests if 0 < share < 1 else 0.0
    if more <= 0 or not requests or not since:
        return ""
    return f", {rough(more * since.total_seconds() / requests)} more at the traffic of this step"


def _counted(state: ReleaseState, settle: timedelta, since: timedelta) -> str:
    """Say when counting begins, or since when no requests have come."""
    if state.elapsed < settle:
        return f", counting begins {format_duration(settle)} after every proxy has the step"
    return f", no requests came in the {rough(since.total_seconds())} since counting began"


def _elsewhere(watch: Watch) -> str:
    """Say how many requests of the step count elsewhere: another release decided them, or nobody is known."""
    found = ""
    for name, why in _ELSEWHERE.items():
        rows = (counts for (_, segment), counts in watch.step.items() if segment == name)
        if requests := sum(canary + baseline for canary, _, baseline, _ in rows):
            found += f"; {requests} more {why}"
    return found
