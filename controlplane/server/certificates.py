"""The certificates of a port in service: taken anew when their files change, and told before they end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import grpc
import structlog

from controlplane.server.tls import TlsError, TlsFiles
from controlplane.server.troubles import Troubles
from controlplane.server.validity import Validity, best

log = structlog.get_logger(__name__)

# How long before its end it is told of each. Certificates may live for an hour, so never more than a part.
SOON: Final = {"certificate": timedelta(days=7), "client_ca": timedelta(days=30)}
PART: Final = 5

_WHAT = "certificate of"
_NOW = partial(datetime.now, UTC)


class Certificates:
    """What one port uses of some files. For any thread: gRPC asks in threads of its own, at each handshake.

    One that is not valid never replaces one that is.

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
        troubles.watch(self.problems)
        self.problems()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files, at the next handshake."""
        required = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(
            self._used.configuration, self._changed, require_client_authentication=required
        )

    def ends(self) -> Mapping[str, datetime]:
        """Return when those in use end: ``certificate``, and ``client_ca`` if there is one."""
        now = self._clock()
        return {what: best(of, now).ends for what, of in self._used.valid.items()}

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with those in use, or will soon be, for people; logged when it is new."""
        self.renew()
        now = self._clock()
        found = tuple(
            f"{_WHAT} {self.whose}: {self._files.path(what)}: {why}"
            for what, of in self._used.valid.items()
            if (why := _wrong(best(of, now), SOON[what], now))
        )
        for each in found:
            if each not in self._told:
                log.warning("certificate trouble", what=each)
        self._told = found
        return found

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
        for what, of in found.valid.items():
            new = best(of, now)
            if not new.holds(now) and best(self._used.valid[what], now).holds(now):
                raise TlsError(f"{self._files.path(what)}: {_wrong(new, SOON[what], now)}")
        self._take()
        if self._files.stamp() == stamp:  # else they are being written: the next look will see
            self._stamp, self._used = stamp, found
            log.info("certificates read again", whose=self.whose, certificate=str(self._files.certificate))

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what gRPC has not got yet, or None."""
        self.problems()
        with self._lock:
            if self._used is self._served:
                return None
            self._served = self._used
            return self._used.configuration


def _wrong(of: Validity, soon: timedelta, now: datetime) -> str:
    """Say what is wrong with a certificate, or soon will be; '' if nothing is."""
    if now < of.begins:
        return f"is not valid before {of.begins:%Y-%m-%d %H:%M:%S} UTC"
    if now > of.ends:
        return f"expired at {of.ends:%Y-%m-%d %H:%M:%S} UTC"
    if of.ends - now < min(soon, (of.ends - of.begins) / PART):
        return f"expires at {of.ends:%Y-%m-%d %H:%M:%S} UTC"
    return ""
