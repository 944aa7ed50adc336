"""The command `turnout`. Commands that act speak to a running server through its HTTP API."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from controlplane.cli import (
    calendar,
    cohort,
    demo,
    documents,
    events,
    importing,
    operate,
    replay,
    serve,
    show,
    simulate,
    store,
    token,
)
from controlplane.cli.client import CommandError, console

app = typer.Typer(
    name="turnout",
    help="Release by policy on Envoy: segment by segment, on evidence, back at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    serve,
    demo,
    documents,
    show,
    cohort,
    events,
    importing,
    operate,
    calendar,
    token,
    store,
    simulate,
    replay,
):
    module.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.line(f"turnout {version('turnout')}")
        raise typer.Exit


@app.callback()
def _turnout(
    shown: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Release by policy on Envoy: segment by segment, on evidence, back at once."""


def main() -> None:
    """Run the command line; an expected failure is one clear line and exit status 1."""
    try:
        app()
    except CommandError as error:
        console.error(str(error))
        sys.exit(error.status)
