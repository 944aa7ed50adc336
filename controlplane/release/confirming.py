"""Who is known to have what a release gave or took back, and who is not. Pure.

Who was there while a release had traffic may serve it still, wherever it is now:

- who is connected and has acknowledged what everybody should have does not
- who is connected and is not answered, or of a fleet without the service that has not replaced it yet, may
- who is away may, for as long as it may be behind a broken link: `GONE`, and longer where nobody is left

A release does not keep its place for those that are away: it ends, and is confirmed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.release.seen import Propagation
from controlplane.release.state import NOTHING, Phase, ReleaseState
from controlplane.release.unconfirmed import Unconfirmed, named

SOON = timedelta(minutes=1)  # until then the end waits for who is away: most are back by then
GONE = timedelta(minutes=15)  # who is away for so long, while others are there, is taken for gone
KEPT = 20  # are remembered however long they are away, those that were seen last

Known = tuple[Unconfirmed, ...]


@dataclass(frozen=True, slots=True)
class Glance:
    """What is seen of the proxies in a turn: who has what, how long after the turn before, and when, UTC."""

    propagation: Propagation
    elapsed: timedelta
    at: datetime


def followed(state: ReleaseState, seen: Glance) -> Known:
    """Return who is not confirmed while a release has traffic: who was there, and is away or not served.

    ``state`` is as the turn before left it, with who was there then in its gate.
    """
    last = state.turned_at or seen.at
    over = frozenset((*seen.propagation.live, *seen.propagation.left))
    fresh = [Unconfirmed(proxy=proxy, seen=last) for proxy, _ in state.gate if proxy not in over]
    if not fresh and not state.unconfirmed:
        return ()
    every = {each.proxy: each for each in (*fresh, *state.unconfirmed)}
    return _kept(_aged(every.values(), over, seen))


def settled(state: ReleaseState, seen: Glance) -> Known:
    """Return who is still not confirmed once a release has no traffic any more."""
    over = frozenset((*seen.propagation.acked, *seen.propagation.left))
    return doubted(_aged(state.unconfirmed, over, seen), seen.propagation)


def doubted(known: Iterable[Unconfirmed], propagation: Propagation) -> Known:
    """Return who may not be taken for gone; where nobody is left, it is the link that may be broken."""
    there = bool(propagation.acked)
    return tuple(each for each in known if not there or each.away < GONE)


def soon(known: Known) -> Known:
    """Return who may be back any moment."""
    return tuple(each for each in known if each.away < SOON)


def everyone(state: ReleaseState) -> Known:
    """Return who has to acknowledge a promotion: all who were there, and all who are away."""
    last = state.turned_at or state.created_at
    fresh = (Unconfirmed(proxy=proxy, seen=last) for proxy, _ in state.gate)
    return _kept({each.proxy: each for each in (*fresh, *state.unconfirmed)}.values())


def _aged(known: Iterable[Unconfirmed], over: frozenset[str], seen: Glance) -> Iterator[Unconfirmed]:
    """Yield them as they are now, without those for whom it is ``over``."""
    there = {*seen.propagation.live, *(proxy for proxy, _ in seen.propagation.unserved)}
    for each in known:
        if each.proxy in over:
            continue
        if each.proxy in there:
            yield each.model_copy(update={"seen": seen.at, "away": NOTHING})
        else:
            # No longer than it matters: what has ended must come to rest in the store.
            yield each.model_copy(update={"away": min(each.away + seen.elapsed, GONE)})


def _kept(known: Iterable[Unconfirmed]) -> Known:
    """Return those that are remembered, by name: in some fleets proxies come and go all the time."""
    latest = sorted(known, key=lambda each: each.seen, reverse=True)
    kept = (each for place, each in enumerate(latest) if place < KEPT or each.away < GONE)
    return tuple(sorted(kept, key=lambda each: each.proxy))


# --- what is said -----------------------------------------------------------------------------------------


def doubt(state: ReleaseState) -> str:
    """Say by whom an end is not confirmed; '' if it is."""
    had = state.from_version if state.phase is Phase.PROMOTED else state.to_version
    return f"{named(state.unconfirmed)} may still serve {had}" if state.unconfirmed else ""


def alarm(state: ReleaseState) -> str:
    """Say what somebody should look at after an end; '' while proxies have yet to acknowledge a promotion."""
    lasts = any(each.away >= SOON for each in state.unconfirmed)
    if state.active or not state.unconfirmed or (state.phase is Phase.PROMOTED and not lasts):
        return ""
    return f"{state.phase}, NOT CONFIRMED: {doubt(state)}"


def ending(known: Known, propagation: Propagation, to_version: str) -> str:
    """Say what the end of a rollback leaves open, and whom it takes for gone; '' if neither."""
    open_ = doubted(known, propagation)
    gone = tuple(each for each in known if each not in open_)
    words = (
        f"NOT CONFIRMED: {named(open_)} may still serve {to_version}" if open_ else "",
        f"taken for gone: {named(gone)}" if gone else "",
    )
    return "".join(f"; {each}" for each in words if each)


def how(before: Known, seen: Glance) -> str:
    """Say by what an end came to be confirmed."""
    over = {*seen.propagation.acked, *seen.propagation.left}
    gone = tuple(each for each in before if each.proxy not in over)
    acked = len(seen.propagation.acked)
    said = f"confirmed: {acked} of {len(seen.propagation.live)} proxies acknowledged"
    return f"{said}; taken for gone: {named(gone)}" if gone else said
