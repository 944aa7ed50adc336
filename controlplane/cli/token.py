"""`turnout token`: let someone use the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import CommandError, console
from controlplane.policy.roles import ROLES, Role


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)


def token(
    name: Annotated[str, typer.Argument(help="Who it is for; records will say so.")],
    file: Annotated[Path, typer.Option(help="The file of `serve --operators`; made if it is not there.")],
    role: Annotated[str, typer.Option(help=f"{', '.join(ROLES[:-1])} or {ROLES[-1]}.")],
    service: Annotated[
        list[str] | None, typer.Option(help="For this service only; give it again for more.")
    ] = None,
) -> None:
    """Make a token, add its hash to the file, print it this once; commands find it in TURNOUT_TOKEN."""
    from controlplane.web.operators import OperatorsError, enrol, new_token

    made, digest = new_token()
    try:
        enrol(file, name, _role(role), tuple(service or ()), digest)
    except OperatorsError as error:
        raise CommandError(str(error)) from None
    console.line(made)


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise CommandError(f"--role: {text!r} is not known; known: {', '.join(ROLES)}", 2)
