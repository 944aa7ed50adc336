"""What of X.509 is read: whose a certificate is, who signed it, and from when until when it is valid."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from controlplane.xds.validity import Validity

_PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)
_SEQUENCE, _SET, _VERSION, _UTC_TIME, _GENERALIZED_TIME, _BMP_STRING = 0x30, 0x31, 0xA0, 0x17, 0x18, 0x1E
_ATTRIBUTES: Final = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}


@dataclass(frozen=True, slots=True)
class Name:
    """A distinguished name as DER has it; as text, the attributes that people know it by."""

    der: bytes
    text: str

    def __str__(self) -> str:
        """Return it like ``CN=R11, O=Let's Encrypt``."""
        return self.text


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is read of a certificate.

    Attributes:
        der: All of it.
        issuer: Who signed it, by its own words.
        subject: Whose it is.
        valid: From when until when.
    """

    der: bytes
    issuer: Name
    subject: Name
    valid: Validity

    @property
    def self_issued(self) -> bool:
        """True if it names itself as its issuer, as roots do."""
        return self.issuer == self.subject


def certificates(pem: bytes) -> tuple[Certificate, ...]:
    """Return all certificates of a file, in its order.

    Raises:
        ValueError: If there is none, or one cannot be read.
    """
    found = tuple(_certificate(binascii.a2b_base64(body)) for body in _PEM.findall(pem))
    if not found:
        raise ValueError("has no certificate")
    return found


def _certificate(der: bytes) -> Certificate:
    """Read the beginning: version (or none), serial number, algorithm, issuer, validity, subject.

    Source: RFC 5280, section 4.1.
    """
    certificate = _fields(der, 1)[0]
    to_be_signed = _fields(_inside(certificate), 1)[0]
    parts = _fields(_inside(to_be_signed), 6)
    issuer, validity, subject = parts[3:6] if parts[0][0] == _VERSION else parts[2:5]
    begins, ends = _fields(_inside(validity), 2)
    return Certificate(der, _name(issuer), _name(subject), Validity(_time(*begins), _time(*ends)))


def _fields(der: bytes, number: int = 0) -> list[tuple[int, bytes]]:
    """Return the first fields, or all, as tag and content."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while len(found) < number or (not number and at < len(der)):
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


def _inside(field: tuple[int, bytes], kind: int = _SEQUENCE) -> bytes:
    tag, content = field
    if tag != kind:
        raise ValueError("a certificate is not X.509")
    return content


def _name(field: tuple[int, bytes]) -> Name:
    """Read a sequence of sets of attributes, each a kind and a text."""
    der = _inside(field)
    pairs = [_fields(_inside(pair), 2) for part in _fields(der) for pair in _fields(_inside(part, _SET))]
    known = [f"{_ATTRIBUTES[kind[1]]}={_text(*text)}" for kind, text in pairs if kind[1] in _ATTRIBUTES]
    return Name(der, ", ".join(known) or "a nameless one")


def _text(tag: int, content: bytes) -> str:
    text = content.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def _time(tag: int, content: bytes) -> datetime:
    """Return a time; of two digits of a year, those from 50 on are of the century before."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = f"{'19' if text >= '50' else '20'}{text}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a certificate has a time of no known kind")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
