"""How the gRPC server listens, and why so."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import grpc.aio

_MINUTE = 60_000  # milliseconds

SERVER_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # Two servers on one port would share the proxies by chance, and neither would know.
    ("grpc.so_reuseport", 0),
    # Twice what a service takes: what is too large for it is refused by it, and is shown. gRPC itself would
    # refuse it unseen.
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_send_message_length", -1),
    # Clients of the per-type services open several streams per proxy over one connection.
    ("grpc.max_concurrent_streams", 512),
    # The defaults (1000 and 3000) refuse streams when thousands of proxies reconnect at once.
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    # The default (30) ends streams that waited so many seconds until they were taken in: most of 5000 on a
    # machine that is short of CPU. They would only come again.
    ("grpc.server_max_unrequested_time_in_server", 600),
    # gRPC measures the bandwidth of each connection: for each message that comes in it sends a ping, which is
    # answered. That is a third of the CPU of a push with its ACK, and a third of the time until the last one.
    # Without it the window is fixed: four times an Envoy's first request, so that only what is larger than
    # that, as of a client that comes back with thousands of versions, waits a round trip or two more.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 << 10),
    # A half-open connection is found in 15 s, and a stuck stream ends with it.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Envoy pings too, as our bootstrap tells it; without this it gets GOAWAY "too many pings" after a few
    # (seen). The second is what C calls MIN_RECV_PING_INTERVAL; no other spelling has an effect.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    # Streams stick to a replica: an end of age rebalances them, and makes new certificates count. gRPC
    # spreads it by 10 % either way.
    ("grpc.max_connection_age_ms", 60 * _MINUTE),
    ("grpc.max_connection_age_grace_ms", _MINUTE // 2),
)


class BindError(Exception):
    """The port cannot be listened on; the text says which and why."""


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        BindError: If it is something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BindError(f"{address!r} is not an address; write 'host:port'")
    return host.strip("[]"), int(port)


def loopback(host: str) -> bool:
    """Return whether only this machine can reach an address; of names, only localhost counts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(
    server: grpc.aio.Server,
    host: str,
    port: int,
    credentials: grpc.ServerCredentials | None = None,
    *,
    insecure: bool = False,
) -> int:
    """Add a port to a server that was made with ``SERVER_OPTIONS``; return it (0 asks for a free one).

    Raises:
        BindError: If the port is busy, or the address is not ours, or others could reach it in plain text
            and ``insecure`` does not allow that.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if credentials is None and not insecure and not loopback(host):
        raise BindError(
            f"{address} is not loopback, and would be served in plain text without authentication"
        )
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise BindError(f"cannot listen on {address}: {_reason(host, port) or error}") from error
    return int(bound)


def _reason(host: str, port: int) -> str:
    """Return what the system says about an address; gRPC keeps it to itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return ""
