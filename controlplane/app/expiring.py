"""Connected proxies whose own certificates end soon. Pure.

gRPC tells nobody of a handshake that it refuses: who comes with a certificate that has ended is seen nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from controlplane.policy.values import listed
from controlplane.xds.view import StreamView

SOON: Final = timedelta(days=7)
_DO = "renew, as who comes with one that has ended does not get in, and is seen nowhere"


def ending(view: StreamView) -> datetime | None:
    """Return when a proxy's certificate ends if that was near when it connected; else None.

    What it has got since then is not known, and a connection is an hour old at most: so one that lives for an
    hour and is renewed in time is never near.
    """
    valid = view.peer.valid
    return valid.ends if valid is not None and valid.near(SOON, view.since) else None


def counts(views: Iterable[StreamView]) -> Mapping[str, int]:
    """Return how many proxies' certificates end soon, of each fleet whose proxies have any."""
    return {fleet: len(_ending(proxies)) for fleet, proxies in _by_fleet(views).items()}


def of_certificates(views: Iterable[StreamView], now: datetime) -> Iterator[str]:
    """Yield a line for each fleet with such proxies: which, those that end first before the others."""
    for fleet, proxies in sorted(_by_fleet(views).items()):
        if not (found := _ending(proxies)):
            continue
        several, (first, _) = len(found) > 1, found[0]
        whose = f"{'proxies' if several else 'proxy'} {listed(name for _, name in found)}"
        of = f" of fleet {fleet!r}" if fleet else ""
        what = f"own {'certificates: the first' if several else 'certificate'}"
        ends = "expired" if now > first else "expires"
        yield f"{whose}{of}: {what} {ends} at {first:%Y-%m-%d %H:%M:%S} UTC; {_DO}"


def _by_fleet(views: Iterable[StreamView]) -> Mapping[str, Mapping[str, StreamView]]:
    """Return the newest stream of each proxy that has a certificate, by fleet."""
    found: dict[str, dict[str, StreamView]] = {}
    for view in views:
        if view.peer.valid is not None:
            found.setdefault(view.group or "", {})[str(view)] = view
    return found


def _ending(proxies: Mapping[str, StreamView]) -> list[tuple[datetime, str]]:
    ends = ((ending(view), name) for name, view in proxies.items())
    return sorted((at, name) for at, name in ends if at is not None)
