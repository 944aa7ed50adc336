"""When releases may go on: windows of a policy, blackouts of a fleet."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from controlplane.policy.cron import parse_cron
from controlplane.policy.documents.model import Model
from controlplane.policy.fields import Duration
from controlplane.policy.problems import meant
from controlplane.policy.values import shown

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_END = 24 * 60
TIME_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$"
LOCAL_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$"


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError(f"{shown(name)} is not a time zone{meant(name, _zones())}; write 'Europe/Berlin'")
    return name


def _zones() -> frozenset[str]:
    global _known  # noqa: PLW0603 - reading 600 files takes a while, and they do not change
    if not _known:
        _known = frozenset(available_timezones())
    return _known


_known: frozenset[str] = frozenset()


def _minutes(value: Any) -> int:
    if isinstance(value, str):
        if value == "24:00":
            return DAY_END
        try:
            parsed = time.fromisoformat(value) if len(value) == 5 else None
        except ValueError:
            parsed = None
        if parsed is not None:
            return parsed.hour * 60 + parsed.minute
    raise ValueError(f"{shown(value)} is not a time of day; write '09:00', up to '24:00'")


def _days(value: Any) -> tuple[int, ...]:
    found: set[int] = set()
    for part in value.lower().split(",") if isinstance(value, str) else ("",):
        first, dash, last = part.strip().partition("-")
        if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
            raise ValueError(f"{shown(value)} are not days; write 'mon-thu' or 'mon, wed, sat-sun'")
        begin = WEEKDAYS.index(first)
        length = (WEEKDAYS.index(last) - begin) % 7 if dash else 0
        found |= {(begin + n) % 7 for n in range(length + 1)}
    return tuple(sorted(found))


def _format_days(days: tuple[int, ...]) -> str:
    return ",".join(WEEKDAYS[day] for day in days)


def format_minutes(value: int) -> str:
    """Return ``'09:00'``."""
    return f"{value // 60:02}:{value % 60:02}"


def _local(value: Any) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value
    try:
        if isinstance(value, str) and len(value) == 16:
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError(f"{shown(value)} is not a local time; write '2026-12-23T18:00', the zone apart")


def _cron(text: str) -> str:
    parse_cron(text)
    return text


Zone = Annotated[str, AfterValidator(_zone)]
Cron = Annotated[str, AfterValidator(_cron)]
TimeOfDay = Annotated[
    int,
    BeforeValidator(_minutes, json_schema_input_type=Annotated[str, Field(pattern=TIME_PATTERN)]),
    PlainSerializer(format_minutes, return_type=str),
]
Days = Annotated[
    tuple[int, ...],
    BeforeValidator(_days, json_schema_input_type=str),
    PlainSerializer(_format_days, return_type=str),
]
LocalTime = Annotated[
    datetime,
    BeforeValidator(_local, json_schema_input_type=Annotated[str, Field(pattern=LOCAL_PATTERN)]),
    PlainSerializer(lambda value: f"{value:%Y-%m-%dT%H:%M}", return_type=str),
]


class Window(Model):
    """Days and times at which steps may start; one that ends before it begins goes on after midnight.

    Times are minutes since midnight, days count from Monday.
    """

    days: Days = tuple(range(7))
    from_: TimeOfDay = Field(default=0, alias="from")
    to: TimeOfDay = DAY_END
    zone: Zone = "UTC"

    @model_validator(mode="after")
    def _has_time(self) -> Self:
        if self.from_ == DAY_END:
            raise ValueError("begins at 24:00; that is 00:00 of the next day")
        if self.from_ == self.to:
            raise ValueError("is empty: 'from' and 'to' are the same time of day")
        return self


class Blackout(Model):
    """A time in which no step starts: between two local times, or for a while after each match of a cron."""

    from_: LocalTime | None = Field(default=None, alias="from")
    to: LocalTime | None = None
    cron: Cron | None = None
    for_: Duration | None = Field(default=None, alias="for")
    zone: Zone = "UTC"
    because: str = ""

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        once = (self.from_ is not None) + (self.to is not None)
        often = (self.cron is not None) + (self.for_ is not None)
        if (once, often) not in ((2, 0), (0, 2)):
            fields = {"from": self.from_, "to": self.to, "cron": self.cron, "for": self.for_}
            given = " and ".join(name for name, value in fields.items() if value is not None)
            raise ValueError(f"has {given or 'none'}; either from and to, or cron and for, is needed")
        if self.for_ == timedelta(0):
            raise ValueError("for: 0s is no time at all")
        if self.span and self.span[0] >= self.span[1]:
            raise ValueError("ends before it begins")
        return self

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """Begin and end, UTC, of one between two local times; of a time that the clock repeats, both."""
        if self.from_ is None or self.to is None:
            return None
        zone = ZoneInfo(self.zone)
        begin, end = self.from_.replace(tzinfo=zone, fold=0), self.to.replace(tzinfo=zone, fold=1)
        return begin.astimezone(UTC), end.astimezone(UTC)
