"""What needs a person, of releases and proxies: a line each, with what to do, the worst first. Pure.

Proxies that have the same trouble share a line, so that a fleet of thousands does not fill a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

from controlplane.app.behind import AHEAD
from controlplane.app.membership import Member
from controlplane.app.propagation import refusals
from controlplane.policy.values import format_duration, listed
from controlplane.release import holding
from controlplane.release.state import ReleaseState
from controlplane.xds.type_urls import LISTENER
from controlplane.xds.view import StreamView

ASKED = timedelta(minutes=15)  # that a consent may take before it is something to look at
PAUSED = timedelta(hours=1)  # likewise a pause
AGAIN = "correct its document, or the proxy, and then `turnout resend NODE`"
MOST = 20  # lines of proxies

AT_ONCE = frozenset({"approval-expired", "stepped-back"})
IN_TIME = frozenset({"approval", "test-over"})

# By the kind of the hold; what the reason says already is left out.
DO = {
    "baseline": "see what both versions suffer from; it goes on by itself once that is over; {back}",
    "dependency-failed": "run that one again, or call this one off: `turnout rollback {name}`",
    "ending": "end what cannot be reached, or wait until it is back: `turnout get proxies`",
    "left-alone": "",
    "nack": "correct what is refused: `turnout get proxies`",
    "no-data": "see why it does not come; {back}",
    "no-endpoints": "bring its endpoints back, or `turnout rollback {name}`",
    "no-proxy": "start the proxies of its fleets, or look why they do not connect",
    "not-from": "",
    "quiet": "see whether its requests reach the proxies: `turnout get services` has its hosts",
    "rolling-back": "end what cannot be reached, or wait until it is back: `turnout get proxies`",
    "stale": "see whose statistics are missing: `turnout get proxies`",
    "stepped-back": "",
    "stragglers": "see what they wait for: `turnout get proxies`",
    "unconfirmed": "see who is back: `turnout get proxies`",
    "unsafe": "bring endpoints of the old version back",
}
OTHERWISE = "`turnout explain {name}` says more, `turnout rollback {name}` takes it back"


def of_releases(states: Iterable[ReleaseState]) -> Iterator[str]:
    """Yield the releases that a person has to look at: frozen ones, those held for long, those that ask."""
    found = ((rank, state.name, text) for state in states if not state.ended for rank, text in _needs(state))
    for _, name, text in sorted(found):
        yield f"release {name}: {text}"


def _needs(state: ReleaseState) -> Iterator[tuple[int, str]]:
    since = f"for {_age(state.held)}"
    if state.halt == "frozen":
        yield 0, f"frozen {since}: {state.halted}"
    elif state.halt == "paused" and state.held >= PAUSED:
        yield 3, f"paused {since}: {state.halted}; `turnout resume {state.name}` goes on"
    elif state.halt is None and state.told:
        held = f"held for {_age(state.wrong)}"
        if holding.kind(state.hold) == "wrong":
            if state.wrong - state.held >= holding.LASTS:
                held += f", by this for {_age(state.held)}"
            do = DO.get(state.hold, OTHERWISE).format(name=state.name, back=_back(state))
            yield 1, "; ".join(filter(None, (f"{held}: {state.because}", do)))
        else:
            yield (
                4,
                f"was held for {_age(state.wrong)} ({state.told_why}), not any more for {_age(state.well)}",
            )
    elif state.hold in AT_ONCE or (state.hold in IN_TIME and state.held >= ASKED):
        yield 2, f"waits {since}: {state.because}"


def _back(state: ReleaseState) -> str:
    if state.testing:
        return f"`turnout end {state.name}` ends the test"
    return f"`turnout rollback {state.name}` takes it back"


def of_proxies(views: Iterable[StreamView], member: Callable[[StreamView], Member]) -> Iterator[str]:
    """Yield what is wrong with connected proxies: what they refuse, and who is not served."""
    found: dict[tuple[int, str, str], dict[str, None]] = {}
    for view in views:
        for rank, what in _troubles(view, member):
            fleet = f" of fleet {view.group!r}" if view.group else ""
            found.setdefault((rank, fleet, what), {})[str(view)] = None
    for (_, fleet, what), proxies in sorted(found.items())[:MOST]:
        many = "proxies" if len(proxies) > 1 else "proxy"
        yield f"{many} {listed(sorted(proxies))}{fleet}: {what}"
    if len(found) > MOST:
        yield f"proxies: {len(found) - MOST} more troubles of this kind: `turnout get proxies`"


def _troubles(view: StreamView, member: Callable[[StreamView], Member]) -> Iterator[tuple[int, str]]:
    if view.node is None:
        return  # it has not said who it is yet
    if view.group is None:
        place = member(view)
        if not place.problem:
            return  # it has just come into a fleet
        do = "" if place.fleets else "; correct them, or what its bootstrap says of its node"
        yield 1, f"not served: {place.problem}{do}"
        return
    asked = view.of(LISTENER)
    missing = {name: nack for name, nack in asked.nacks.items() if name not in asked.acked} if asked else {}
    for name, nack in missing.items():
        yield (
            0,
            f"has no listener {name!r}, which it refuses: {nack.message}; nobody serves its address; {AGAIN}",
        )
    for words in refusals(view) if any(each.nacks for each in view.types) else ():
        if not any(words.startswith(f"Listener {name!r}") for name in missing):
            yield 2, f"refuses {words}; what it had stays; {AGAIN}"
    if view.behind:
        yield 3, f"{AHEAD}: restore a newer copy, or `turnout store init`"


def _age(value: timedelta) -> str:
    """Return a duration that is calm to look at: in seconds, then minutes."""
    seconds = round(value.total_seconds())
    return format_duration(timedelta(seconds=seconds if seconds < 60 else seconds - seconds % 60))
