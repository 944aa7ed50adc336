"""TLS of the gRPC port: files that may be replaced while the server runs, and who may be which node."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from controlplane.server.troubles import Troubles
from controlplane.xds.messages import Node
from controlplane.xds.view import Peer

log = structlog.get_logger(__name__)

_CERTIFICATE = ("certificate of", "--xds")
_Stamp = tuple[tuple[int, int, int], ...]


class TlsError(Exception):
    """A certificate, key or CA cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM.

    Attributes:
        certificate: The server's certificate, with its chain.
        key: Its private key, without a passphrase.
        client_ca: Who signs clients' certificates; given, a client without one is not let in.
    """

    certificate: Path | str
    key: Path | str
    client_ca: Path | str | None = None

    def credentials(self, troubles: Troubles | None = None) -> grpc.ServerCredentials:
        """Return credentials that read the files again, at the next handshake, when they have changed.

        Args:
            troubles: Where it is shown that new ones cannot be used.

        Raises:
            TlsError: If they cannot be used now. Later on, the last good ones stay in use.
        """
        reload = _Reload(self, troubles or Troubles())
        return grpc.dynamic_ssl_server_credentials(
            reload.first, reload, require_client_authentication=self.client_ca is not None
        )

    def _paths(self) -> tuple[Path, ...]:
        given = (self.certificate, self.key, self.client_ca)
        return tuple(Path(path) for path in given if path is not None)

    def stamp(self) -> _Stamp:
        """Return what changes when a file does."""
        found = []
        for path in self._paths():
            try:
                stat = path.stat()
            except OSError as error:
                raise TlsError(f"{path}: {(error.strerror or str(error)).lower()}") from error
            found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(found)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return the contents, checked: gRPC would refuse handshakes without a word."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        at, of = Path(self.certificate), "the certificate or its key"
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
            if self.client_ca is not None:
                at, of = Path(self.client_ca), "it"
                context.load_verify_locations(self.client_ca)
            certificate, key, *ca = (path.read_bytes() for path in self._paths())
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            why = "is not the certificate of this key" if mismatch else f"{of} is not PEM that can be used"
            raise TlsError(f"{at}: {why}") from error
        except OSError as error:
            raise TlsError(f"{at}: {(error.strerror or str(error)).lower()}") from error
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca[0] if ca else None)


class _Reload:
    """Called by gRPC, in threads of its own, at each handshake: new certificates, or None for the same."""

    def __init__(self, files: TlsFiles, troubles: Troubles) -> None:
        self._files = files
        self._troubles = troubles
        self._lock = threading.Lock()
        self._stamp = files.stamp()
        self.first = files.read()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            try:
                stamp = self._files.stamp()
                if stamp == self._stamp:
                    self._troubles.clear(*_CERTIFICATE)
                    return None
                found = self._files.read()
                if self._files.stamp() != stamp:
                    return None  # being written: the next handshake will see
            except TlsError as error:
                self._troubles.add(*_CERTIFICATE, f"the last good one stays: {error}")
                return None
            self._stamp = stamp
        self._troubles.clear(*_CERTIFICATE)
        log.info("certificates reloaded", certificate=str(self._files.certificate))
        return found


def refuse_stranger(node: Node, peer: Peer) -> str | None:
    """Say why a peer may not be this node, or return None.

    A node belongs to the certificate that has its id as a name (a subject alternative name, or the common
    name where there is no other), or a SPIFFE id whose last segment it is.
    """
    owned = {*peer.identities, *(name.rpartition("/")[2] for name in peer.identities if _spiffe(name))}
    if node.id in owned:
        return None
    names = ", ".join(peer.identities) or "none"
    return f"node id {node.id!r} is not a name of your certificate; it has: {names}"


def _spiffe(name: str) -> bool:
    return name.startswith("spiffe://")
