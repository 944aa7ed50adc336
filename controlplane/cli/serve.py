"""`turnout serve`: the control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import CommandError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    data: Annotated[Path, typer.Option(help="Folder of the store.")] = Path(".turnout"),
    policies: Annotated[
        Path | None,
        typer.Option(help="Folder of documents to follow; without it `turnout apply` is the way in."),
    ] = None,
    xds: Annotated[str, typer.Option(help="Where proxies connect.")] = "127.0.0.1:18000",
    http: Annotated[
        str, typer.Option(help="Where operators and the other commands connect.")
    ] = "127.0.0.1:18080",
    interval: Annotated[
        str, typer.Option(help="How often proxies push statistics, as in their bootstrap.")
    ] = "5s",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_json: Annotated[bool, typer.Option("--log-json", help="Logs as JSON lines.")] = False,
) -> None:
    """Serve configuration to Envoys, follow their statistics, decide releases."""
    import asyncio
    import signal

    from controlplane.app import logs
    from controlplane.app.serving import ServeError, Settings, serving
    from controlplane.policy.values import parse_duration
    from controlplane.release.ports import StoreError

    if log_level not in ("debug", "info", "warning", "error"):
        raise CommandError(f"--log-level: {log_level!r} is not known; known: debug, info, warning, error", 2)
    if policies is not None and not policies.is_dir():
        raise CommandError(f"--policies: {policies} is not a folder", 2)
    try:
        every = parse_duration(interval)
    except ValueError as error:
        raise CommandError(f"--interval: {error}", 2) from None
    logs.configure(log_level, as_json=log_json)
    settings = Settings(data, policies, xds, http, every)

    async def main() -> None:
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        async with serving(settings) as running:
            failure = asyncio.create_task(running.failure())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([failure, stopped], return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                raise ServeError(failure.result())
            failure.cancel()

    try:
        asyncio.run(main())
    except (ServeError, StoreError) as error:
        raise CommandError(str(error)) from None
