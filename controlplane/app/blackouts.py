"""Blackouts that operators declare, and how all of them are shown. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from controlplane.policy.calendar import blackout_until
from controlplane.policy.documents import Blackout
from controlplane.policy.explanation import told
from controlplane.policy.values import format_duration, parse_duration
from controlplane.release.ports import Change, Declared, Record, World
from controlplane.web.asked import Declare, Who
from controlplane.web.port import RefusedError
from controlplane.web.shown import BlackoutShown

_MINUTE = timedelta(minutes=1)


def declare(world: World, wanted: Declare, now: datetime) -> Change:
    """Return the change that adds a blackout; those that are over go with it.

    Raises:
        RefusedError: If it is none, or is over already.
    """
    blackout = _wanted(wanted, now)
    if blackout.span is not None and blackout.span[1] <= now:
        raise RefusedError(400, f"{describe(blackout)} is over already")
    over = [d.id for d in world.blackouts.values() if d.blackout.span and d.blackout.span[1] <= now]
    declared = Declared(
        id=_fresh_id(world), fleet=wanted.fleet, blackout=blackout, actor=wanted.actor, at=now
    )
    reason = f"{declared.id}: fleet {wanted.fleet}: {describe(blackout)}"
    record = _record("blackout", wanted, reason, now)
    return Change(blackouts={**dict.fromkeys(over), declared.id: declared}, records=(record,))


def withdraw(world: World, blackout: str, wanted: Who, now: datetime) -> Change:
    """Return the change that removes a declared blackout."""
    gone = world.blackouts[blackout]
    reason = f"{gone.id}: fleet {gone.fleet}: {describe(gone.blackout)}"
    return Change(blackouts={blackout: None}, records=(_record("blackout-end", wanted, reason, now),))


def show_blackouts(world: World, now: datetime) -> tuple[BlackoutShown, ...]:
    """Return the blackouts of all fleets, those of documents first."""
    written = [("", fleet.name, b, "") for fleet in world.catalog.fleets() for b in fleet.blackouts]
    declared = [(d.id, d.fleet, d.blackout, d.actor) for _, d in sorted(world.blackouts.items())]
    return tuple(
        BlackoutShown(
            id=id_,
            fleet=fleet,
            when=describe(blackout),
            because=blackout.because,
            actor=actor,
            until=blackout_until(blackout, now),
        )
        for id_, fleet, blackout, actor in (*written, *declared)
    )


def describe(blackout: Blackout) -> str:
    """Return a blackout in a few words."""
    if blackout.cron is not None and blackout.for_ is not None:
        return f"{blackout.cron} for {format_duration(blackout.for_)} {blackout.zone}"
    return f"{blackout.from_:%Y-%m-%d %H:%M} to {blackout.to:%Y-%m-%d %H:%M} {blackout.zone}"


def _wanted(wanted: Declare, now: datetime) -> Blackout:
    fields = wanted.model_dump(
        by_alias=True, exclude_none=True, include={"from_", "to", "cron", "zone", "for_"}
    )
    try:
        if set(fields) == {"for"} and wanted.for_ is not None:
            # From now on, in whole minutes.
            begin = now.astimezone(UTC).replace(second=0, microsecond=0, tzinfo=None)
            end = (begin + parse_duration(wanted.for_) + _MINUTE).replace(second=0, microsecond=0)
            return Blackout(from_=begin, to=end, because=wanted.reason)
        return Blackout.model_validate(fields | {"because": wanted.reason})
    except ValidationError as error:
        hint = "" if fields.keys() & {"from", "to", "cron"} else "; `for` alone, without a zone, begins now"
        raise RefusedError(400, told(Blackout, fields, error, "the blackout") + hint) from error
    except ValueError as error:
        raise RefusedError(400, f"for: {error}") from error


def _fresh_id(world: World) -> str:
    taken = [int(id_[1:]) for id_ in world.blackouts if id_[1:].isdigit()]
    return f"b{max(taken, default=0) + 1}"


def _record(action: str, wanted: Who, reason: str, now: datetime) -> Record:
    why = f": {wanted.reason}" if wanted.reason else ""
    return Record(at=now, kind="calendar", action=action, actor=wanted.actor, reason=reason + why)
