"""`turnout replay`: a release decided again from what was seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    missing, words = _compared(records, _written(server, release), recording.turns)
    left_out = sum(each.left_out for each in taken)
    if as_json:
        shown = [r.model_dump(mode="json", exclude={"number"}) for r in records]
        console.json({
            "release": release, "policy": (other or own).name, "turns": len(taken),
            "outcome": _outcome(taken), "same": not missing, "words": words, "left_out": left_out,
            "not_recorded": untold, "decisions": shown,
        })  # fmt: skip
    else:
        _print(records, taken, other, left_out)
    if untold:
        typer.echo(f"not recorded, and taken as passed: {', '.join(untold)}", err=True)
    if other is None and words:
        typer.echo(f"decided as then, but {words} are told in other words: by another version", err=True)
    if other is not None and taken and taken[-1].turn.after.state.phase is Phase.WAITING:
        state = taken[-1].turn.after.state
        raise CommandError(f"under policy {other.name} it never starts: {state.because}")
    if other is None and missing:
        raise CommandError(f"not as it was decided then: {missing[0]}", 3)


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


def _compared(
    now: Sequence[Record], written: Sequence[Record], turns: Sequence[Recorded]
) -> tuple[tuple[str, ...], int]:
    """Return what was decided differently, and of how many decisions the words are others.

    Records of other times than the turns' do not count. The words may be those of another version of Turnout,
    which may also not have written down that the cause of a hold had changed.
    """
    begins, ends = (turns[0].moment.at, turns[-1].moment.at) if turns else (None, None)
    then = [r for r in written if r.kind == "decision" and begins and ends and begins <= r.at <= ends]
    if not any("cause" in record.numbers for record in then):
        now = [record for record in now if not record.numbers.get("again")]
    ours, theirs = ({_decided(r): r for r in records} for records in (now, then))
    missing = tuple(
        f"{r.at:%Y-%m-%d %H:%M:%S} {r.step}: {r.action}: {r.reason}"
        for key, r in sorted((ours | theirs).items())
        if (key in ours) is not (key in theirs)
    )
    return missing, sum(key in theirs and theirs[key].reason != r.reason for key, r in ours.items())


def _decided(record: Record) -> tuple[datetime, str, str, str, str]:
    """Return what a record says was decided, with the figures that it rests on."""
    verdicts = record.numbers.get("verdicts", ())
    assert isinstance(verdicts, list | tuple)
    figures = [
        f"{v['metric']}/{v['segment']} {v['outcome']} "
        + " ".join(f"{name}={value:.4g}" for name, value in sorted(v["numbers"].items()))
        for v in verdicts
    ]
    return record.at, record.action, record.step, str(record.numbers.get("code", "")), "; ".join(figures)


def _outcome(taken: Sequence[Replayed]) -> str:
    return str(taken[-1].turn.after.state.phase) if taken else "waiting"


def _print(
    records: Sequence[Record], taken: Sequence[Replayed], other: PinnedPolicy | None, left_out: int
) -> None:
    shape = clock(record.at for record in records)
    for record in records:
        console.line(f"{record.at:{shape}}  {record.step:12s} {record.action:9s} {record.reason}")
    under = f"under policy {other.name}" if other else "under its own policy"
    console.line(f"{_outcome(taken)} after {len(taken)} turns {under}")
    if other:
        console.line("the counts are those of the shares that the release had then")
    if left_out:
        console.line("operators' acts after the start were left out: its own policy alone follows them")
