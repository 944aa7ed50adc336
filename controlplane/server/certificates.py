"""The certificates of a port in service: taken anew when their files change, and told before they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import grpc
import structlog

from controlplane.server.chains import shortened
from controlplane.server.tls import Contents, TlsError, TlsFiles
from controlplane.server.troubles import Troubles
from controlplane.server.x509 import Certificate
from controlplane.xds.validity import Validity

log = structlog.get_logger(__name__)

# How long before its end it is told of each.
SOON: Final = {"certificate": timedelta(days=7), "client_ca": timedelta(days=30)}

_WHAT = "certificate of"
_DO = (
    "beyond that its clients do not get in: put the new authority beside it, renew their certificates, "
    "then take it out"
)
_NOW = partial(datetime.now, UTC)


class Certificates:
    """What one port uses of some files. For any thread: gRPC asks in threads of its own, at each handshake.

    One that is not valid never replaces one that is: a chain with all its certificates, and of the clients'
    authorities one of them.

    Attributes:
        whose: The port, as people know it.
    """

    def __init__(
        self,
        files: TlsFiles,
        whose: str,
        troubles: Troubles,
        take: Callable[[], object] = lambda: None,
        clock: Callable[[], datetime] = _NOW,
    ) -> None:
        """Read the files.

        Args:
            files: To be read.
            whose: The port, as people know it.
            troubles: Where it is shown that new ones cannot be used, and that those in use end soon.
            take: Called when the files have changed, before that counts; may raise OSError.
            clock: The time, in UTC.

        Raises:
            TlsError: If they cannot be used. That they are not valid now is shown, and hinders nothing else:
                the other port may be well, and new files may come.
        """
        self.whose = whose
        self._files = files
        self._troubles = troubles
        self._take = take
        self._clock = clock
        self._lock = threading.Lock()
        self._told: tuple[str, ...] = ()
        self._stamp = files.stamp()
        self._used = self._served = files.read()
        self._whole = self._used.chain  # the last one that lacked nothing
        troubles.watch(self.problems)
        self.problems()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files, at the next handshake."""
        required = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(
            self._used.configuration, self._changed, require_client_authentication=required
        )

    def ends(self) -> Mapping[str, datetime]:
        """Return when the first in use ends, of ``certificate``, and of ``client_ca`` if there is one."""
        parts = {"certificate": self._used.chain, "client_ca": _lasting(self._used.authorities)}
        return {what: min(each.valid.ends for each in of) for what, of in parts.items() if of}

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with those in use, or will soon be, for people; logged when it is new."""
        self.renew()
        found = tuple(f"{_WHAT} {self.whose}: {self._files.path(what)}: {why}" for what, why in self._wrong())
        for each in found:
            if each not in self._told:
                log.warning("certificate trouble", what=each)
        self._told = found
        return found

    def _wrong(self) -> Iterator[tuple[str, str]]:
        now, used = self._clock(), self._used
        for why in _of_chain(used.chain, now, SOON["certificate"]):
            yield "certificate", why
        if why := shortened(used.chain, self._whole):
            yield "certificate", why
        for why in _of_authorities(used.authorities, now, SOON["client_ca"]):
            yield "client_ca", why

    def renew(self) -> None:
        """Take the files anew if they have changed; what cannot be used is left out, and shown."""
        with self._lock:
            try:
                stamp = self._files.stamp()
                if stamp != self._stamp:
                    self._read(stamp)
                self._troubles.clear(_WHAT, self.whose)
            except (TlsError, OSError) as error:
                self._troubles.add(_WHAT, self.whose, f"the one in use stays: {error}")

    def _read(self, stamp: object) -> None:
        found, now = self._files.read(), self._clock()
        was = _useless(self._used, now)
        for what, why in _useless(found, now).items():
            if what not in was:
                raise TlsError(f"{self._files.path(what)}: {why}")
        self._take()
        if self._files.stamp() == stamp:  # else they are being written: the next look will see
            self._stamp, self._used = stamp, found
            if not shortened(found.chain, self._whole):
                self._whole = found.chain
            log.info("certificates read again", whose=self.whose, certificate=str(self._files.certificate))

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what gRPC has not got yet, or None."""
        self.problems()
        with self._lock:
            if self._used is self._served:
                return None
            self._served = self._used
            return self._used.configuration


def _of_chain(chain: Sequence[Certificate], now: datetime, soon: timedelta) -> Iterator[str]:
    """Yield what is wrong with a chain, or will soon be; its first certificate is the server's own."""
    for at, each in enumerate(chain):
        if why := _wrong(each.valid, soon, now):
            yield f"{each.subject}, certificate {at + 1} of its chain, {why}" if at else why


def _of_authorities(authorities: Sequence[Certificate], now: datetime, soon: timedelta) -> Iterator[str]:
    """Yield whose clients cannot get in, or soon cannot. One before its time was put in ahead of it."""
    early = not any(each.valid.holds(now) for each in authorities)
    for each in _lasting(authorities):
        why = _wrong(each.valid, soon, now)
        if why and (early or each.valid.begins <= now):
            yield f"{each.subject} {why}; {_DO}"


def _lasting(authorities: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Return of each name the one that ends last: it was renewed."""
    by_end = sorted(authorities, key=lambda each: each.valid.ends)
    return tuple({each.subject: each for each in by_end}.values())


def _useless(contents: Contents, now: datetime) -> Mapping[str, str]:
    """Return of which files nobody can get in, and why."""
    chain, authorities, soon = contents.chain, contents.authorities, timedelta()
    found: dict[str, str] = {}
    for why in _of_chain(chain, now, soon):
        found.setdefault("certificate", why)
    if not any(each.valid.holds(now) for each in authorities):
        for why in _of_authorities(authorities, now, soon):
            found.setdefault("client_ca", why)
    return found


def _wrong(of: Validity, soon: timedelta, now: datetime) -> str:
    """Say what is wrong with a certificate, or soon will be; '' if nothing is."""
    if now < of.begins:
        return f"is not valid before {of.begins:%Y-%m-%d %H:%M:%S} UTC"
    if now > of.ends:
        return f"expired at {of.ends:%Y-%m-%d %H:%M:%S} UTC"
    if of.near(soon, now):
        return f"expires at {of.ends:%Y-%m-%d %H:%M:%S} UTC"
    return ""
