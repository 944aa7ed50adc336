"""`turnout events`: the log of decisions, actions and documents, and what is added to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from controlplane.cli.client import DEFAULT_SERVER, Server, check_output, console, get, stream
from controlplane.release.ports import Record


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(events)


def events(
    release: Annotated[str, typer.Argument(help="Of this release alone.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, max=10_000, help="How many of the past.")
    ] = 50,
    output: Annotated[
        str, typer.Option("--output", "-o", help="text, or json: one record per line.")
    ] = "text",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show what was decided and done, oldest first: when, who, what, why."""
    check_output(output)
    last: int | None = None
    for record in _past(server, release, limit):
        _print(record, output)
        last = record.number
    if follow:
        params = {"release": release} if release else {}
        for text in stream(server, "/v1/events", params | ({} if last is None else {"after": str(last)})):
            _print(Record.model_validate_json(text), output)


def _past(server: str, release: str, limit: int) -> Iterator[Record]:
    if limit:
        params: dict[str, str | int] = {"limit": limit} | ({"release": release} if release else {})
        yield from get(server, "/v1/records", tuple[Record, ...], params)


def _print(record: Record, output: str) -> None:
    if output == "json":
        console.line(record.model_dump_json())
        return
    about = record.release or record.service or "-"
    step = f" [{record.step}]" if record.step else ""
    said = f": {record.reason}" if record.reason else ""
    when = f"{record.at:%Y-%m-%d %H:%M:%S}Z"
    console.line(f"{when} #{record.number} {about}{step} {record.action} by {record.actor}{said}")
