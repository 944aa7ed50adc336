"""`turnout replay`: a release decided again from what was seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from controlplane.cli.client import (
    DEFAULT_SERVER,
    CommandError,
    Output,
    Server,
    check_output,
    clock,
    console,
    get,
)
from controlplane.cli.simulate import policy_of
from controlplane.release.ports import Record
from controlplane.release.recording import Recorded, Recording
from controlplane.release.state import Phase

if TYPE_CHECKING:
    from controlplane.policy.pinned import PinnedPolicy
    from controlplane.release.replay import Replayed

PAGE = 500  # turns per request
RECORDS = 5000  # the same
MOMENT = "%Y-%m-%d %H:%M:%S"


class Figure(NamedTuple):
    """What a decision rests on, then and now; None where that has no such figure."""

    at: datetime
    step: str
    figure: str
    then: float | str | None
    now: float | str | None


class Compared(NamedTuple):
    """How a release that was decided again compares with what was written down.

    Attributes:
        missing: Decisions that only one of them has, in words.
        words: How many are told in other words, or told at all, in one of them only.
        figures: Of each that is the same and rests on other figures, the first of these.
    """

    missing: tuple[str, ...]
    words: int
    figures: tuple[Figure, ...]

    @property
    def told(self) -> str:
        """What differs where everything was decided the same; '' if nothing does."""
        if not self.figures:
            return f"{self.words} decisions are told in other words, by another version" if self.words else ""
        first = self.figures[0]
        then, now = ("none" if each is None else each for each in (first.then, first.now))
        where = f"{first.at:{MOMENT}} {first.step}: {first.figure}: {then} then, {now} now"
        several = f"the figures of {len(self.figures)} decisions differ, as between versions of Turnout"
        return f"{several}; the first: {where}"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    release: Annotated[str, typer.Argument(help="A release that has begun.")],
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="Files with another policy, its segments, and the service if more is counted now."),
    ] = None,
    name: Annotated[str, typer.Option(help="Which policy of the files, if there are several.")] = "",
    server: Server = DEFAULT_SERVER,
    output: Output = "text",
) -> None:
    """Decide a recorded release again, step by step, under its own policy or another one."""
    from controlplane.policy.recorded import pin_again
    from controlplane.release.replay import replay as again

    as_json = check_output(output)
    if name and not policy:
        raise CommandError("--name: says which policy of the files that --policy gives; there are none", 2)
    given = policy_of(policy, name) if policy else None
    recording = _read(server, release)
    assert recording.origin is not None
    own = recording.origin.state.policy
    other, untold = pin_again(*given, own, recording.origin.state.service) if given else (None, ())
    taken = list(again(recording.origin, recording.turns, other))
    records = tuple(record for each in taken for record in each.turn.records)
    compared = _compared(records, _written(server, release), recording.turns)
    left_out = sum(each.left_out for each in taken)
    if as_json:
        shown = [r.model_dump(mode="json", exclude={"number"}) for r in records]
        console.json({
            "release": release, "policy": (other or own).name, "turns": len(taken),
            "outcome": _outcome(taken), "same": not compared.missing, "words": compared.words,
            "figures": [f._asdict() | {"at": f.at.isoformat()} for f in compared.figures],
            "left_out": left_out, "not_recorded": untold, "decisions": shown,
        })  # fmt: skip
    else:
        _print(records, taken, other, left_out, same=not compared.missing)
    if untold:
        typer.echo(f"not recorded, and taken as passed: {', '.join(untold)}", err=True)
    if other is None and not compared.missing and compared.told:
        typer.echo(f"decided the same, but {compared.told}", err=True)
    if other is not None and taken and taken[-1].turn.after.state.phase is Phase.WAITING:
        state = taken[-1].turn.after.state
        raise CommandError(f"under policy {other.name} it never starts: {state.because}")
    if other is None and compared.missing:
        raise CommandError(f"not as it was decided then: {compared.missing[0]}", 3)


def _read(server: str, release: str) -> Recording:
    first = get(server, f"/v1/releases/{release}/recording", Recording, {"limit": PAGE})
    if first.origin is None:
        raise CommandError(f"release {release!r}: nothing was recorded, or it is forgotten by now")
    turns, last, more = list(first.turns), first.last, len(first.turns)
    while more == PAGE:
        page = get(server, f"/v1/releases/{release}/recording", Recording, {"limit": PAGE, "after": last})
        turns, last, more = [*turns, *page.turns], page.last, len(page.turns)
    return Recording(first.origin, tuple(turns), last)


def _written(server: str, release: str) -> list[Record]:
    """Return all that was written down of a release, oldest first."""
    found: list[Record] = []
    while True:
        after = found[-1].number if found else 0
        params: dict[str, str | int] = {"release": release, "limit": RECORDS, "after": after}
        page = get(server, "/v1/records", tuple[Record, ...], params)
        found += page
        if len(page) < RECORDS:
            return found


def _compared(now: Sequence[Record], written: Sequence[Record], turns: Sequence[Recorded]) -> Compared:
    """Return how what is decided now compares with what was.

    Records of other times than the turns' do not count. Words and figures may be those of another version of
    Turnout, and so may be which causes of a hold are written down, and what people are told of.
    """
    begins, ends = (turns[0].moment.at, turns[-1].moment.at) if turns else (None, None)
    then = [r for r in written if r.kind == "decision" and begins and ends and begins <= r.at <= ends]
    ours, theirs = ({_decided(r): r for r in records} for records in (now, then))
    single = [r for key, r in sorted((ours | theirs).items()) if (key in ours) is not (key in theirs)]
    missing = tuple(f"{r.at:{MOMENT}} {r.step}: {r.action}: {r.reason}" for r in single if not _telling(r))
    pairs = [(theirs[key], r) for key, r in sorted(ours.items()) if key in theirs]
    words = sum(old.reason != new.reason for old, new in pairs) + sum(map(_telling, single))
    return Compared(missing, words, tuple(filter(None, starmap(_other, pairs))))


def _telling(record: Record) -> bool:
    """Return whether a record decides nothing: it tells another cause of the same hold, or people of one."""
    return bool(record.numbers.get("again")) or record.action in ("held", "cleared")


def _decided(record: Record) -> tuple[datetime, str, str, str]:
    """Return what a record says was decided."""
    return record.at, record.action, record.step, str(record.numbers.get("code", ""))


def _other(then: Record, now: Record) -> Figure | None:
    """Return the first figure of a decision that is another one now; they are compared to four digits."""
    old, new = _figures(then), _figures(now)
    names = (name for name in (old | new) if old.get(name) != new.get(name))
    return next((Figure(now.at, now.step, name, old.get(name), new.get(name)) for name in names), None)


def _figures(record: Record) -> dict[str, float | str]:
    """Return the outcome of each condition, and what it rests on."""
    verdicts = record.numbers.get("verdicts", ())
    assert isinstance(verdicts, list | tuple)
    found: dict[str, float | str] = {}
    for verdict in verdicts:
        of = f"{verdict['metric']}/{verdict['segment']}"
        found[f"{of} outcome"] = str(verdict["outcome"])
        found |= {f"{of} {name}": float(f"{value:.4g}") for name, value in sorted(verdict["numbers"].items())}
    return found


def _outcome(taken: Sequence[Replayed]) -> str:
    return str(taken[-1].turn.after.state.phase) if taken else "waiting"


def _print(
    records: Sequence[Record],
    taken: Sequence[Replayed],
    other: PinnedPolicy | None,
    left_out: int,
    *,
    same: bool,
) -> None:
    shape = clock(record.at for record in records)
    for record in records:
        console.line(f"{record.at:{shape}}  {record.step:12s} {record.action:9s} {record.reason}")
    own = "under its own policy: decided the same" if same else "under its own policy: NOT as it was decided"
    under = f"under policy {other.name}" if other else own
    console.line(f"{_outcome(taken)} after {len(taken)} turns {under}")
    if other:
        console.line("counts and the check of the split are those of the shares that the release had then")
    if left_out:
        console.line("operators' acts after the start were left out: its own policy alone follows them")
