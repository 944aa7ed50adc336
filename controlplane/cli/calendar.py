"""`turnout blackout …`: times in which no step of a fleet starts."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli.client import DEFAULT_SERVER, Actor, Output, Reason, Server, console, get, me, post
from controlplane.cli.show import show_table
from controlplane.web.asked import Declare, Who
from controlplane.web.shown import BlackoutShown

Blackouts = tuple[BlackoutShown, ...]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Forbid steps on a fleet for a while; rollbacks always may.", no_args_is_help=True
    )
    group.command(name="add")(add)
    group.command(name="remove")(remove)
    group.command(name="list")(list_)
    app.add_typer(group, name="blackout")


def add(
    fleet: str,
    for_: Annotated[str | None, typer.Option("--for", help="How long, from now or from the cron.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Local time, as 2026-12-23T18:00.")] = None,
    to: Annotated[str | None, typer.Option(help="Local time.")] = None,
    cron: Annotated[str | None, typer.Option(help="When it begins, five fields.")] = None,
    zone: Annotated[str | None, typer.Option(help="Of local times and cron; by default UTC.")] = None,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Add a blackout to a fleet: --for alone begins now; else --from and --to, or --cron and --for."""
    declare = Declare(
        fleet=fleet, for_=for_, from_=from_, to=to, cron=cron, zone=zone, reason=reason, actor=actor or me()
    )
    _print(post(server, "/v1/blackouts", declare, Blackouts))


def remove(id_: str, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER) -> None:
    """Remove a blackout that was added, by its id; one of a document goes with the document."""
    _print(post(server, f"/v1/blackouts/{id_}/end", Who(actor=actor or me(), reason=reason), Blackouts))


def list_(server: Server = DEFAULT_SERVER, output: Output = "text") -> None:
    """List the blackouts of all fleets."""
    show_table(lambda: get(server, "/v1/blackouts", Blackouts), HEADS, _rows, output)


HEADS = ("id", "fleet", "when", "now", "because", "who")


def _rows(shown: Blackouts) -> list[tuple[str, ...]]:
    return [
        (b.id or "-", b.fleet, b.when, f"until {b.until:%Y-%m-%d %H:%M} UTC" if b.until else "no", b.because,
         b.actor or "document")
        for b in shown
    ]  # fmt: skip


def _print(shown: Blackouts) -> None:
    for row in _rows(shown):
        console.line("  ".join(row))
