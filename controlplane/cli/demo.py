"""`turnout demo`: the main job in one command."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli.client import CommandError

FAULT_HELP = (
    "none, errors=10%, latency=x2, crash, both=10%, silent; also errors=10%@guarding (from the guard on) and "
    "errors=50%@segment=beta (in one segment only)."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    fault: Annotated[str, typer.Option(help=FAULT_HELP)] = "none",
    rps: Annotated[
        float,
        typer.Option(
            min=1,
            max=2000,
            help="Requests per second of all users; with few, a proof takes longer than --seconds.",
        ),
    ] = 200,
    proxies: Annotated[int, typer.Option(min=1, max=8, help="How many Envoys.")] = 2,
    pace: Annotated[
        str, typer.Option(help="fast: seconds per step; real: as one would release a service.")
    ] = "fast",
    seconds: Annotated[float, typer.Option(min=1, help="Give up and report after this long.")] = 300,
    headless: Annotated[
        bool, typer.Option("--headless", help="One line per change instead of the live view.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object as the last line.")] = False,
    seed: Annotated[int, typer.Option(help="Of the simulated users.")] = 0,
) -> None:
    """Run a release on real Envoys with simulated users, and show it live."""
    import asyncio
    import signal

    from rich.console import Console

    from controlplane.app.logs import quiet
    from controlplane.app.serving import ServeError
    from controlplane.demo.envoys import EnvoyError
    from controlplane.demo.fault import Fault
    from controlplane.demo.report import Facts, last_line
    from controlplane.demo.run import Options, run
    from controlplane.demo.view import LineView, LiveView

    if pace not in ("fast", "real"):
        raise CommandError(f"--pace: {pace!r} is not known; known: fast, real", 2)
    try:
        what = Fault.parse(fault)
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    quiet()
    console = Console()
    view = LiveView(console) if console.is_terminal and not headless else LineView(console)
    options = Options(what, rps, proxies, "fast" if pace == "fast" else "real", seconds, seed)

    async def main() -> tuple[Facts, bool]:
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        return await run(options, view, stop), stop.is_set()

    try:
        facts, interrupted = asyncio.run(main())
    except (EnvoyError, ServeError) as error:
        raise CommandError(str(error)) from None
    if as_json:
        print(last_line(facts), flush=True)
    if interrupted:
        raise CommandError("interrupted", 130)
