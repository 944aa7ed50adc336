"""Scalars that operators write: shares, durations, addresses, hosts.

Each parser takes what YAML gave and returns the value, or raises ``ValueError`` with what is allowed.
Parsers accept their own output, so documents survive a round trip through JSON.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from urllib.parse import urlsplit

from controlplane.policy.grpc_codes import CODES
from controlplane.policy.latency import EDGES_MS, edge_index
from controlplane.policy.problems import meant
from controlplane.policy.stats import CLUSTER_STATS

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
SHARE_PATTERN = r"^[0-9]+(\.[0-9]{1,2})?%$"
DURATION_PATTERN = r"^([0-9]+(ms|s|m|h|d))+$"
PPM = 1_000_000
STEP_PPM = 100  # 0.01 %

MAX_IDENTITY = 128
MAX_WORD = 256  # of a value in a condition
NAMED = 5  # names in a sentence

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_ADDRESS = re.compile(
    r"^(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9_.-]{1,253})):(?P<port>[1-9][0-9]{0,4})$"
)
_HOST = re.compile(r"^(\*|(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)$")


_WORDS = {None: "null", True: "true", False: "false"}


def shown(value: object) -> str:
    """Return ``value`` as it appears in a message: quoted, and cut when it is long."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-10:]}"


def listed(names: Iterable[str]) -> str:
    """Return some names, and how many more there are."""
    names = tuple(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def parse_share(value: object) -> int:
    """Return parts per million for ``'2.5%'``."""
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    if not isinstance(value, str) or not re.fullmatch(SHARE_PATTERN, value) or len(value) > 12:
        fine = isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3,8}%", value)
        steps = ", which come in steps of 0.01%" if fine else ""
        raise ValueError(f"{shown(value)} is not a share{steps}; write a percentage such as '5%' or '0.01%'")
    whole, _, rest = value[:-1].partition(".")
    ppm = int(whole) * 10_000 + int(rest.ljust(2, "0") or "0") * STEP_PPM
    if ppm > PPM:
        raise ValueError(f"{value} is not between 0% and 100%")
    return ppm


def format_share(ppm: int) -> str:
    """Return ``'2.5%'`` for 25000."""
    return f"{ppm / 10_000:.2f}".rstrip("0").rstrip(".") + "%"


def parse_duration(value: object) -> timedelta:
    """Return the duration of ``'1m30s'``."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN, value) or len(value) > 24:
        raise ValueError(f"{shown(value)} is not a duration; write '30s', '5m', '2h' or '14d'")
    seconds = sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)(ms|s|m|h|d)", value))
    if seconds > 366 * 86_400:
        raise ValueError(f"{value!r} is longer than 366d")
    return timedelta(seconds=seconds)


@lru_cache(maxsize=1024)
def format_duration(value: timedelta) -> str:
    """Return ``'1m30s'``; ``'0s'`` for nothing."""
    ms = round(value / timedelta(milliseconds=1))
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_seconds(value: timedelta) -> str:
    """Return a duration in whole seconds, for people."""
    return format_duration(timedelta(seconds=round(value.total_seconds())))


def _address(value: object) -> tuple[str, bool] | None:
    """Return the address and whether its host is an IP, or None if it is no ``host:port``."""
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found["port"]) > 65535:
        return None
    try:
        ip = ipaddress.ip_address(found["v6"] or found["host"])
    except ValueError:
        numeric = found["v6"] or re.fullmatch(r"[0-9.]+", found["host"])
        return None if numeric else (f"{found['host'].lower()}:{found['port']}", False)
    return (f"[{ip}]:{found['port']}" if ip.version == 6 else f"{ip}:{found['port']}"), True


def parse_address(value: object) -> str:
    """Return ``'host:port'``, the host a DNS name or an IP address."""
    if found := _address(value):
        return found[0]
    raise ValueError(f"{shown(value)} is not an address; write 'host:port' with a port from 1 to 65535")


def parse_ip_address(value: object) -> str:
    """Return ``'10.0.0.1:8080'`` or ``'[::1]:8080'``."""
    found = _address(value)
    if found and found[1]:
        return found[0]
    advice = "; a DNS name goes in 'dns'" if found else ""
    raise ValueError(
        f"{shown(value)} is not an IP address with a port; write '10.0.0.1:8080' or '[::1]:8080'{advice}"
    )


def parse_host(value: object) -> str:
    """Return the lower-cased host: exact, ``*.suffix`` or ``*``."""
    host = value.lower() if isinstance(value, str) else ""
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(f"{shown(value)} is not a host; write 'shop.example.com', '*.example.com' or '*'")
    return host


def parse_one_host(value: object) -> str:
    """Return the lower-cased host of a condition: exact or ``*.suffix``."""
    if (host := parse_host(value)) == "*":
        raise ValueError("'*' is every host; leave the condition out")
    return host


def parse_network(value: object) -> str:
    """Return ``'10.0.0.0/8'``; a single address is a network of its own."""
    try:
        network = ipaddress.ip_network(value, strict=False) if isinstance(value, str) else None
    except ValueError:
        network = None
    if network is None:
        raise ValueError(
            f"{shown(value)} is not a network; write '10.0.0.0/8', '2001:db8::/32' or '10.1.2.3'"
        )
    if ipaddress.ip_address(str(value).partition("/")[0]) != network.network_address:
        raise ValueError(f"{shown(value)} has bits beyond its prefix; write '{network}'")
    if network.version == 6 and network.network_address.packed[:2] == b"\0\0" and str(network) != "::1/128":
        raise ValueError(f"{shown(value)} has IPv4 addresses in it; write those as '10.0.0.0/8'")
    return str(network)


def parse_limit(value: object) -> timedelta:
    """Return a latency limit, which lies on a bucket edge."""
    edges = ", ".join(format_duration(timedelta(milliseconds=ms)) for ms in EDGES_MS)
    try:
        limit = parse_duration(value)
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not an edge of the latency buckets; the edges are {edges}"
        ) from None
    if edge_index(limit) is None:
        raise ValueError(
            f"{format_duration(limit)} is not an edge of the latency buckets; the edges are {edges}"
        )
    return limit


def check_identity(value: str) -> str:
    """Return ``value`` if a user may be called so in a header, a cookie or a query."""
    if not 0 < len(value) <= MAX_IDENTITY:
        raise ValueError(f"{shown(value)} has {len(value)} characters; a user has 1 to {MAX_IDENTITY}")
    if value != value.strip() or not value.isprintable() or ";" in value:
        raise ValueError(f"{shown(value)} has spaces at its ends, ';' or control characters")
    return value


def check_url_word(value: str) -> str:
    """Return ``value`` if it may be compared with a part of a URL as it is sent, not decoded."""
    if wrong := next((c for c in check_word(value) if not "!" <= c <= "~" or c in "#?&"), None):
        raise ValueError(
            f"{shown(value)} has {wrong!r}; values are compared as they are sent: write it percent-encoded"
        )
    return value


def parse_amount(value: object) -> float:
    """Return the number of ``12.5``, or 0.03 for ``'3%'``."""
    if isinstance(value, str) and value.endswith("%"):
        return parse_share(value) / PPM
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{shown(value)} is neither a number nor a percentage")
    return float(value)


def check_stat(value: str) -> str:
    """Return ``value`` if proxies report a counter of that name."""
    if value not in CLUSTER_STATS:
        known = ", ".join(CLUSTER_STATS)
        text = f"{shown(value)} is no counter that proxies report; those of a cluster are {known}"
        raise ValueError(text + meant(value, CLUSTER_STATS, 0.9))  # all of them begin alike
    return value


def check_grpc_code(value: str) -> str:
    """Return ``value`` if it is the name of a gRPC status that is not OK."""
    if value not in CODES:
        raise ValueError(
            f"{shown(value)} is no code of a gRPC call that failed; those are {', '.join(CODES)}"
        )
    return value


def check_word(value: str) -> str:
    """Return ``value`` if it may be compared with a header or a cookie."""
    if not value:
        raise ValueError("is empty; 'present' asks whether there is a value at all")
    if len(value) > MAX_WORD:
        raise ValueError(f"has {len(value)} characters; at most {MAX_WORD} are allowed")
    if not value.isprintable():
        raise ValueError(f"{shown(value)} has control characters, which never appear in a request")
    return value


_ENVIRONMENT = re.compile(r"\$[A-Z][A-Z0-9_]*")


def is_url(text: str) -> bool:
    """Return whether a text is an address of an HTTP server that can be connected to."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that no server has
    except ValueError:
        return False
    whole = parts.scheme in ("http", "https") and bool(parts.hostname)
    return whole and text.isprintable() and " " not in text


def parse_url(value: object) -> str:
    """Return an address of an HTTP server, or ``$NAME``: the server's environment has it.

    Raises:
        ValueError: If it is neither, or has a user and password, which do not belong into a document.
    """
    text = value if isinstance(value, str) else ""
    if _ENVIRONMENT.fullmatch(text):
        return text
    if not is_url(text):
        raise ValueError(f"{shown(value)} is not an address such as 'https://host/path', nor '$NAME' of one")
    parts = urlsplit(text)
    if parts.username or parts.password:
        raise ValueError(
            "has a user or password in it; write '$NAME' and give the server the address as NAME"
        )
    return text
