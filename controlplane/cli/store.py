"""`turnout store …`: the store's file, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import CommandError, console

Data = Annotated[Path, typer.Option("--data", help="Folder of the store, as `turnout serve --data`.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Check, copy and restore the store.", no_args_is_help=True)
    for command in (verify, backup, restore):
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
