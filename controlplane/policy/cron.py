"""Five-field cron expressions: minute, hour, day of month, month, day of week.

As cron has it: lists, ranges, steps, names; Sunday is 0 or 7; when both days are restricted, either of them
is enough. Times are wall-clock times of a zone: one that a change of the clock skips happens when the clock
has jumped, one that it repeats happens once, the first time.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 7, DAYS),
)
_LEAP_YEAR = 2024


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression; days of the week count from Monday, 0, as Python's do.

    ``either_day`` is true when both days are restricted, so that one of them is enough.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def on(self, day: date) -> bool:
        """Return whether it happens on a day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.weekday() in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week

    def last(self, now: datetime, zone: ZoneInfo, within: timedelta) -> datetime | None:
        """Return when it last happened, UTC, not after ``now`` and less than ``within`` before it."""
        day, first = now.astimezone(zone).date(), (now - within).astimezone(zone).date()
        while day >= first:
            for moment in self._moments(day, zone) if self.on(day) else ():
                if moment <= now:
                    return moment if now - moment < within else None
            day -= timedelta(days=1)
        return None

    def _moments(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield the moments of a day, UTC, the latest first."""
        for hour in reversed(self.hours):
            for minute in reversed(self.minutes):
                yield datetime.combine(day, time(hour, minute), zone).astimezone(UTC)


def parse_cron(text: str) -> Cron:
    """Return the expression.

    Raises:
        ValueError: If it is none, or can never happen.
    """
    parts = text.lower().split()
    if len(parts) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        raise ValueError(f"{text!r} has {len(parts)} fields; five are needed: {names}")
    minutes, hours, days, months, weekdays = (
        _field(part, *field) for part, field in zip(parts, _FIELDS, strict=True)
    )
    either = not (parts[2].startswith("*") or parts[4].startswith("*"))
    if not either and not any(min(days) <= monthrange(_LEAP_YEAR, month)[1] for month in months):
        raise ValueError(f"{text!r} never happens: no month of it has a day {min(days)}")
    week = frozenset((day + 6) % 7 for day in weekdays)
    return Cron(tuple(sorted(minutes)), tuple(sorted(hours)), days, months, week, either)


def _field(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isascii() and step.isdigit() and 1 <= int(step[:4]) <= high):
            raise ValueError(f"{name}: {step!r} is not a step; 1 to {high} is allowed")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(first, name, low, high, names)
            end = _number(last, name, low, high, names) if dash else high if slash else begin
        if begin > end:
            raise ValueError(f"{name}: {span!r} runs backwards; the smaller comes first")
        values.update(range(begin, end + 1, int(step) if slash else 1))
    return frozenset(values)


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text in names:
        return names.index(text) + low
    if text.isascii() and text.isdigit() and low <= int(text[:4]) <= high:
        return int(text)
    known = f" or {names[0]} to {names[-1]}" if names else ""
    raise ValueError(f"{name}: {text!r} is not allowed; {low} to {high}{known}")
