"""TLS: the files of a port, and who may be which node."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from controlplane.server.chains import misfit
from controlplane.server.x509 import Certificate, certificates
from controlplane.xds.messages import Node
from controlplane.xds.view import Peer

Stamp = tuple[tuple[int, int, int], ...]


class TlsError(Exception):
    """A certificate, key or CA cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What some files had.

    Attributes:
        configuration: The same for gRPC.
        chain: The server's own certificate and those that lead to who signed it.
        authorities: Who signs clients' certificates; empty if they need none.
    """

    configuration: grpc.ServerCertificateConfiguration
    chain: tuple[Certificate, ...]
    authorities: tuple[Certificate, ...]


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

    def path(self, what: str) -> Path:
        """Return the path of one of them, by its attribute."""
        return Path(getattr(self, what))

    def _paths(self) -> tuple[Path, ...]:
        given = (self.certificate, self.key, self.client_ca)
        return tuple(Path(path) for path in given if path is not None)

    def stamp(self) -> Stamp:
        """Return what changes when a file does."""
        found = []
        for path in self._paths():
            try:
                stat = path.stat()
            except OSError as error:
                raise TlsError(f"{path}: {(error.strerror or str(error)).lower()}") from error
            found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(found)

    def read(self) -> Contents:
        """Return the contents, checked: gRPC would refuse handshakes without a word.

        Raises:
            TlsError: If they cannot be used. Whether they are valid now is not looked at.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authorities: tuple[Certificate, ...] = ()
        at, of = self.path("certificate"), "the certificate or its key"
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
            certificate, key, *ca = (path.read_bytes() for path in self._paths())
            chain = certificates(certificate)
            if why := misfit(context, chain):
                raise ValueError(why)
            if self.client_ca is not None:
                at, of = self.path("client_ca"), "it"
                context.load_verify_locations(self.client_ca)
                authorities = certificates(ca[0])
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            why = "is not the certificate of this key" if mismatch else f"{of} is not PEM that can be used"
            raise TlsError(f"{at}: {why}") from error
        except OSError as error:
            raise TlsError(f"{error.filename or at}: {(error.strerror or str(error)).lower()}") from error
        except ValueError as error:
            raise TlsError(f"{at}: {error}") from error
        used = grpc.ssl_server_certificate_configuration([(key, certificate)], ca[0] if ca else None)
        return Contents(used, chain, authorities)


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
