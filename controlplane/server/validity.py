"""From when until when certificates are valid: what of X.509 is read for it, and nothing else."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid, both included."""

    begins: datetime
    ends: datetime

    def holds(self, now: datetime) -> bool:
        """True if it is valid at that time."""
        return self.begins <= now <= self.ends


def best(of: Sequence[Validity], now: datetime) -> Validity:
    """Return the one that ends last, of those that hold now if any does."""
    return max(of, key=lambda each: (each.holds(now), each.ends))


def validities(pem: bytes) -> tuple[Validity, ...]:
    """Return those of all certificates in a file, in its order.

    Raises:
        ValueError: If there is none, or one cannot be read.
    """
    found = tuple(_validity(binascii.a2b_base64(body)) for body in _PEM.findall(pem))
    if not found:
        raise ValueError("has no certificate")
    return found


def _validity(der: bytes) -> Validity:
    """Read the beginning, by RFC 5280: version (or none), serial number, algorithm, issuer, validity."""
    certificate = _fields(der, 1)[0]
    to_be_signed = _fields(_inside(certificate), 1)[0]
    parts = _fields(_inside(to_be_signed), 5)
    begins, ends = _fields(_inside(parts[4 if parts[0][0] == _VERSION else 3]), 2)
    return Validity(_time(*begins), _time(*ends))


def _fields(der: bytes, number: int) -> list[tuple[int, bytes]]:
    """Return the first fields, as tag and content."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(found) < number:
        head = der[at : at + 2]
        if len(head) < 2:
            raise ValueError("a certificate is cut off")
        tag, length, at = *head, at + 2
        if length & 0x80:  # it says how many bytes the length has
            length, at = int.from_bytes(der[at : at + (length & 0x7F)], "big"), at + (length & 0x7F)
        if at + length > len(der):
            raise ValueError("a certificate is cut off")
        found.append((tag, der[at : at + length]))
        at += length
    return found


def _inside(field: tuple[int, bytes]) -> bytes:
    tag, content = field
    if tag != _SEQUENCE:
        raise ValueError("a certificate is not X.509")
    return content


def _time(tag: int, content: bytes) -> datetime:
    """Return a time; of two digits of a year, those from 50 on are of the century before."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = f"{'19' if text >= '50' else '20'}{text}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a certificate has a time of no known kind")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
