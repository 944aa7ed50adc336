"""Whether a step may start now: windows and blackouts, as people's clocks in their zones show the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from controlplane.policy.cron import parse_cron
from controlplane.policy.documents.calendar import Blackout, Window

_DAY = timedelta(days=1)


def in_window(window: Window, now: datetime) -> bool:
    """Return whether a wall clock in the window's zone shows a time of it."""
    local = now.astimezone(ZoneInfo(window.zone))
    minute, today, yesterday = local.hour * 60 + local.minute, local.weekday(), (local.weekday() - 1) % 7
    if window.from_ < window.to:
        return today in window.days and window.from_ <= minute < window.to
    # Over midnight: the second part belongs to the day before.
    return (today in window.days and minute >= window.from_) or (
        yesterday in window.days and minute < window.to
    )


def outside(windows: tuple[Window, ...], now: datetime) -> str:
    """Return '' inside of any window or without windows, else when the next one opens."""
    if not windows or any(in_window(window, now) for window in windows):
        return ""
    opening, zone = min(_openings(windows, now))
    return f"outside of the policy's windows; the next opens {_said(opening, zone)}"


def _openings(windows: Iterable[Window], now: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield the next opening of each window, with its zone."""
    for window in windows:
        zone = ZoneInfo(window.zone)
        day = now.astimezone(zone).date()
        for later in range(9):  # the same weekday again, should today's have begun already
            that = day + later * _DAY
            at = time(window.from_ // 60, window.from_ % 60)
            opening = datetime.combine(that, at, zone)
            if that.weekday() in window.days and opening > now:
                yield opening.astimezone(UTC), window.zone
                break


def blackout_until(blackout: Blackout, now: datetime) -> datetime | None:
    """Return when a blackout that is in force now ends, UTC; None if it is not in force."""
    if blackout.span is not None:
        begin, end = blackout.span
        return end if begin <= now < end else None
    assert blackout.cron is not None
    assert blackout.for_ is not None
    began = parse_cron(blackout.cron).last(now, ZoneInfo(blackout.zone), blackout.for_)
    return None if began is None else began + blackout.for_


def blacked_out(blackouts: Iterable[Blackout], now: datetime) -> str:
    """Return '' if no blackout is in force, else which one, until when: the one that ends last."""
    ends = [(end, b) for b in blackouts if (end := blackout_until(b, now)) is not None]
    if not ends:
        return ""
    end, longest = max(ends, key=lambda found: found[0])
    because = f" ({longest.because})" if longest.because else ""
    return f"blackout{because} until {_said(end, longest.zone)}"


def _said(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M} {zone}"
