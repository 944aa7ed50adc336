"""`turnout serve`: the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane.cli.client import CommandError, parsed

if TYPE_CHECKING:
    from controlplane.server.tls import TlsFiles


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
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain of the xDS port, read again when it changes.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(help="Who signs the proxies' certificates; given, a proxy without one is refused."),
    ] = None,
    require_identity: Annotated[
        bool, typer.Option("--require-identity", help="A proxy's certificate must have its node id.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Allow both ports beyond loopback without TLS, --http also without tokens."
        ),
    ] = False,
    operators: Annotated[
        Path | None, typer.Option(help="Who may use --http, by `turnout token`; read again when it changes.")
    ] = None,
    http_cert: Annotated[Path | None, typer.Option(help="Certificate chain of the HTTP port.")] = None,
    http_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    prometheus: Annotated[
        str | None, typer.Option(help="Address of the Prometheus that policies query, http://host:9090.")
    ] = None,
    streams_per_peer: Annotated[
        int, typer.Option(min=1, help="Streams that one certificate, or one host, may open.")
    ] = 10_000,
    name: Annotated[
        str | None, typer.Option(help="What this server calls itself to proxies; by default its host.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_json: Annotated[bool, typer.Option("--log-json", help="Logs as JSON lines.")] = False,
) -> None:
    """Serve configuration to Envoys, follow their statistics, decide releases."""
    import asyncio
    import os
    import signal
    import socket
    from datetime import timedelta

    # gRPC's C core would add lines of its own to what is said here; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    from controlplane.app import logs
    from controlplane.app.serving import ServeError, Settings, serving
    from controlplane.policy.values import is_url, parse_duration
    from controlplane.release.ports import StoreError
    from controlplane.server.descriptors import Shortage, allow_many, say
    from controlplane.server.limits import Limits

    if log_level not in ("debug", "info", "warning", "error"):
        raise CommandError(f"--log-level: {log_level!r} is not known; known: debug, info, warning, error", 2)
    if policies is not None and not policies.is_dir():
        raise CommandError(f"--policies: {policies} is not a folder", 2)
    every = parsed("--interval", parse_duration, interval)
    if every < timedelta(milliseconds=100):
        raise CommandError(f"--interval: {interval} is less than 100ms", 2)
    if prometheus is not None and not is_url(prometheus):
        raise CommandError(f"--prometheus: {prometheus!r} is not an address; write http://host:9090", 2)
    tls = _tls(tls_cert, tls_key, client_ca, require_identity=require_identity)
    logs.configure(log_level, as_json=log_json)
    _arm(os.environ)
    settings = Settings(
        data,
        policies,
        xds,
        http,
        every,
        tls,
        insecure,
        require_identity,
        Limits(streams_per_peer=streams_per_peer),
        prometheus,
        operators,
        _http_tls(http_cert, http_key),
        name or socket.gethostname(),
    )

    async def main() -> None:
        files = allow_many()
        asyncio.get_running_loop().set_exception_handler(Shortage(files))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(settings) as running:
            say(files)
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


def _http_tls(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    from controlplane.server.tls import TlsFiles

    if certificate is not None and key is not None:
        return TlsFiles(certificate, key)
    if certificate is not None or key is not None:
        raise CommandError("TLS of --http needs both --http-cert and --http-key", 2)
    return None


def _arm(environment: Mapping[str, str]) -> None:
    from controlplane import failpoints

    try:
        failpoints.arm(environment.get(failpoints.VARIABLE, ""))
    except ValueError as error:
        raise CommandError(f"{failpoints.VARIABLE}: {error}", 2) from None


def _tls(
    certificate: Path | None, key: Path | None, client_ca: Path | None, *, require_identity: bool
) -> TlsFiles | None:
    from controlplane.server.tls import TlsFiles

    if require_identity and client_ca is None:
        raise CommandError("--require-identity: needs --client-ca, which proves who a proxy is", 2)
    if certificate is not None and key is not None:
        return TlsFiles(certificate, key, client_ca)
    if certificate is not None or key is not None or client_ca is not None:
        raise CommandError("TLS needs both --tls-cert and --tls-key", 2)
    return None
