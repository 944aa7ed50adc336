"""A request written in one line: ``GET https://shop.example.com/checkout x-staff: true cookie: uid=42``."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from controlplane.policy.segments import Request
from controlplane.policy.values import shown

MAX_REQUEST = 16_384  # characters

_HEADER = re.compile(r"([A-Za-z0-9-]+):")
_REWRITTEN = re.compile(r"//|/\.\.?(?:/|$)|%2f|%5c|\\", re.IGNORECASE)


def parse_request(text: str) -> Request:
    """Return the request: an optional method, a URL, and headers, each a name with a colon and its value.

    Raises:
        ValueError: If it is not one; or if Envoy would rewrite its path first, so that another is routed.
    """
    if len(text) > MAX_REQUEST:
        raise ValueError(f"has {len(text)} characters; at most {MAX_REQUEST} are allowed")
    words = text.split()
    method = words.pop(0) if words and "/" not in words[0] and not _HEADER.fullmatch(words[0]) else "GET"
    if not words or _HEADER.fullmatch(words[0]):
        raise ValueError(
            f"{shown(text)} has no URL; write 'GET https://shop.example.com/checkout x-staff: true'"
        )
    url = urlsplit(words[0] if "//" in words[0] else f"//{words[0]}")
    if not url.netloc or "@" in url.netloc:
        raise ValueError(f"{shown(words[0])} is not a URL; write 'https://shop.example.com/checkout'")
    path = url.path or "/"
    if _REWRITTEN.search(path):
        raise ValueError(f"{shown(path)} is rewritten before it is routed; write the plain path")
    target = f"{path}?{url.query}" if url.query or words[0].rstrip("#").endswith("?") else path
    return Request(method=method.upper(), host=url.netloc, path=target, headers=tuple(_headers(words[1:])))


def _headers(words: list[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if name := _HEADER.fullmatch(word):
            found.append((name[1].lower(), []))
        elif found:
            found[-1][1].append(word)
        else:
            raise ValueError(f"{shown(word)} follows the URL; headers are written 'name: value'")
    return [(name, " ".join(value)) for name, value in found]
