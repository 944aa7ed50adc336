"""`turnout cohort`: who is in a release's canary, and what it takes to work that out without us."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import DEFAULT_SERVER, CommandError, Server, console, post
from controlplane.web.asked import CohortAsked
from controlplane.web.shown import CohortShown

_AT_ONCE = 20_000  # users in one question
_FORMATS = ("text", "json", "csv")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cohort)


def cohort(
    release: str,
    users: Annotated[
        str,
        typer.Option(help="File with one user a line, or - for standard input; none: only the parameters."),
    ] = "",
    step: Annotated[str, typer.Option(help="Name of a step; by default the present one.")] = "",
    segment: Annotated[str, typer.Option(help="The segment that the users' requests are in.")] = "everyone",
    server: Server = DEFAULT_SERVER,
    output: Annotated[str, typer.Option("--output", "-o", help="text, json or csv.")] = "text",
) -> None:
    """Say who of some users is in the canary of a release, with salt, formula and buckets."""
    if output not in _FORMATS:
        raise CommandError(f"--output: {output!r} is not known; known: {', '.join(_FORMATS)}", 2)
    found = _asked(server, release, _users(users), step, segment)
    if output == "json":
        console.json(found.model_dump(mode="json"))
    elif output == "csv":
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("user", "bucket", "segment", "canary"))
        rows.writerows((u.user, u.bucket, u.segment, str(u.canary).lower()) for u in found.users)
    else:
        _show(found)


def _users(source: str) -> tuple[str, ...]:
    if not source:
        return ()
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--users: {source} cannot be read: {error}") from None
    return tuple(filter(None, map(str.strip, text.splitlines())))


def _asked(server: str, release: str, users: tuple[str, ...], step: str, segment: str) -> CohortShown:
    parts = []
    for start in range(0, max(len(users), 1), _AT_ONCE):
        asked = CohortAsked(users=users[start : start + _AT_ONCE], segment=segment, step=step or None)
        parts.append(post(server, f"/v1/releases/{release}/cohort", asked, CohortShown))
        if parts[-1].model_copy(update={"users": ()}) != parts[0].model_copy(update={"users": ()}):
            raise CommandError(f"release {release!r} went on while it was asked; ask again, or name a --step")
    return parts[0].model_copy(update={"users": tuple(user for part in parts for user in part.users)})


def _show(found: CohortShown) -> None:
    console.line(f"release {found.release}  service {found.service}  step {found.step or '-'}")
    console.line(f"bucket  {found.formula}")
    console.line(f"salt    {found.salt}")
    for group in found.groups:
        spans = ", ".join(f"{start}-{end - 1}" for start, end in group.spans) or "none"
        console.line(f"{group.segment:<20} {group.share:>7} {found.canary}: buckets {spans}")
    for user in found.users:
        version = found.canary if user.canary else found.stable
        console.line(f"{user.user:<40} {user.bucket:>5} {version:<12} {user.segment}")
    if found.users:
        count = sum(user.canary for user in found.users)
        console.line(f"{count} of {len(found.users)} users get {found.canary}")
