"""`turnout store …`: the store's file, without a server; and what a new one is told while it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import (
    DEFAULT_SERVER,
    Actor,
    CommandError,
    Reason,
    Server,
    console,
    me,
    post,
)
from controlplane.web.asked import Adopt
from controlplane.web.shown import ServiceShown

Data = Annotated[Path, typer.Option("--data", help="Folder of the store, as `turnout serve --data`.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Check, copy and restore the store.", no_args_is_help=True)
    for command in (verify, backup, restore, init):
        group.command()(command)
    app.add_typer(group, name="store")


def verify(
    data: Data,
    head: Annotated[
        str, typer.Option(help="Hash of a record that was noted earlier; it must still be there.")
    ] = "",
) -> None:
    """Check the file and the log's chain of hashes; a changed, missing or added record is named."""
    from controlplane.release.ports import StoreError
    from controlplane.stores import upkeep

    try:
        found = upkeep.verify(data / upkeep.FILE, head)
    except StoreError as error:
        raise CommandError(str(error)) from None
    for problem in found.problems:
        console.line(problem)
    if found.problems:
        raise CommandError(
            f"{len(found.problems)} problem{'s' if len(found.problems) > 1 else ''} in the store"
        )
    console.line(f"ok: {found.records} records, head {found.head}")


def backup(
    target: Annotated[Path, typer.Argument(help="File to write; it must not exist.")],
    data: Data,
) -> None:
    """Copy the store to a file, also while a server uses it."""
    from controlplane.release.ports import StoreError
    from controlplane.stores import upkeep

    try:
        upkeep.backup(data / upkeep.FILE, target)
    except StoreError as error:
        raise CommandError(str(error)) from None
    console.line(f"copied to {target}")


def restore(
    copy: Annotated[Path, typer.Argument(help="File that `turnout store backup` wrote.")],
    data: Data,
) -> None:
    """Put a copy in place of the store; the old one is kept beside it. The server must be stopped."""
    from controlplane.release.ports import StoreError
    from controlplane.stores import upkeep

    try:
        aside = upkeep.restore(copy, data)
    except StoreError as error:
        raise CommandError(str(error)) from None
    console.line(f"restored {data / upkeep.FILE}" + (f"; the old store is {aside}" if aside else ""))


def init(
    adopt: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE=VERSION", help="What is stable of a service; for several, again."),
    ] = None,
    gone: Annotated[
        list[str] | None,
        typer.Option(metavar="SERVICE", help="A service that no document has any more; taken from proxies."),
    ] = None,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Tell a running server, whose store is new, what is stable of services that proxies have already."""
    stable: dict[str, str] = {}
    for text in adopt or ():
        service, separator, version = text.partition("=")
        if not (service and separator and version) or stable.get(service, version) != version:
            wrong = "says something else than before" if service in stable else "is not SERVICE=VERSION"
            raise CommandError(f"--adopt: {text!r} {wrong}", 2)
        stable[service] = version
    if not (stable or gone):
        raise CommandError("nothing to do: --adopt SERVICE=VERSION or --gone SERVICE is needed", 2)
    wanted = Adopt(adopt=stable, gone=tuple(gone or ()), actor=actor or me(), reason=reason)
    shown = post(server, "/v1/adopt", wanted, tuple[ServiceShown, ...])
    for each in shown:
        if each.name in stable:
            console.line(f"{each.name}: {each.stable} is stable")
    for name in wanted.gone:
        console.line(f"{name}: is taken from the proxies")
    for each in shown:
        if each.left_alone:
            console.line(f"{each.name}: left alone still at {', '.join(each.left_alone)}")
