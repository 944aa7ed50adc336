"""The command that reads other systems' release documents and writes ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import CommandError, console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_)


def import_(
    files: Annotated[
        list[Path], typer.Argument(help="Flagger, Argo Rollouts or Vamp documents, YAML or JSON.")
    ],
    fleet: Annotated[str, typer.Option(help="Fleet that imported services are put into.")] = "edge",
) -> None:
    """Print release documents of another system as ours; lists what has no equivalent on standard error."""
    from controlplane.peers import translate

    texts = {}
    for path in files:
        try:
            texts[str(path)] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise CommandError(f"{path}: is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        found = translate(texts, fleet)
    except ValueError as error:
        raise CommandError(str(error)) from None
    for each in (*found.unknown, *found.notes):
        console.error(str(each))
    if not found.documents:
        raise CommandError("nothing to import: give a Canary, a Rollout or a release policy of Vamp")
    console.line(found.yaml().rstrip())
