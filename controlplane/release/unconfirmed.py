"""Proxies of which it is not known what they serve: they were given a release, and may have it still.

A proxy that goes away may be dead, or serve what it has beyond a broken link. So who was there while a
release had traffic is remembered with it, until it has acknowledged what everybody should have, or may be
taken for gone; `release.confirming` has the rules. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from controlplane.policy.documents import Model
from controlplane.policy.fields import Duration
from controlplane.policy.values import listed


class Unconfirmed(Model):
    """One such proxy.

    Attributes:
        proxy: Its node id.
        seen: When it was connected last, UTC.
        away: For how long it has not been, by the monotonic clock, while the control plane was there to see.
    """

    proxy: str
    seen: datetime
    away: Duration = timedelta(0)


def named(known: Sequence[Unconfirmed]) -> str:
    """Say who they are and when they were last seen, those that were seen last ahead."""
    latest = sorted(known, key=lambda each: (-each.seen.timestamp(), each.proxy))
    return listed(f"{each.proxy} (last seen {each.seen:%Y-%m-%d %H:%M:%S} UTC)" for each in latest)
