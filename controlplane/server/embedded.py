"""A server over a `Cache`, for programs that embed one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from controlplane.server.accepting import make
from controlplane.server.ads import services, stop
from controlplane.server.cache import Cache
from controlplane.server.callbacks import Callbacks
from controlplane.server.certificates import Certificates
from controlplane.server.limits import Limits
from controlplane.server.options import bind, split_address
from controlplane.server.streams import Refusal, XdsServer
from controlplane.server.tls import TlsFiles, refuse_stranger
from controlplane.server.troubles import Troubles


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is up.

    Attributes:
        port: The one that it listens on.
        xds: Its streams: ``xds.views()``, ``xds.regroup()``.
        troubles: What is wrong with its certificates: ``troubles.current()``.
    """

    port: int
    xds: XdsServer
    troubles: Troubles


@contextlib.asynccontextmanager
async def serve(  # noqa: PLR0913 - options, by name
    cache: Cache,
    address: str,
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - frozen
    *,
    tls: TlsFiles | None = None,
    insecure: bool = False,
    refusal: Refusal = lambda _node, _peer: None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    identifier: str = "",
    drain: float = 1.0,
) -> AsyncIterator[Served]:
    """Serve a cache at ``host:port`` (port 0 asks for a free one) inside the context.

    Fill the cache before: a node is answered as soon as its group has resources. Plain text is for loopback,
    unless ``insecure`` says otherwise. On leaving, the streams are ended over ``drain`` seconds.

    Raises:
        BindError: If the address cannot be listened on.
        TlsError: If the certificates cannot be used.
        ValueError: If ``drain`` is less than 0, or strangers are to be refused and nobody has a certificate.
    """
    if not drain >= 0:
        raise ValueError(f"drain is {drain}; it must be 0 or more")
    if refusal is refuse_stranger and (tls is None or tls.client_ca is None):
        raise ValueError("refuse_stranger needs tls with a client_ca: without it nobody has a certificate")
    xds = XdsServer(
        cache.group_of, refusal=refusal, callbacks=callbacks, identifier=identifier, limits=limits
    )
    server = make(services(xds))
    host, port = split_address(address)
    troubles = Troubles()
    credentials = Certificates(tls, address, troubles).credentials() if tls is not None else None
    bound = bind(server, host, port, credentials, insecure=insecure)
    with contextlib.ExitStack() as leaving:
        leaving.callback(cache.attach(xds.publish, xds.withdraw))
        try:
            await server.start()
            yield Served(bound, xds, troubles)
        finally:
            await stop(server, xds, drain)
