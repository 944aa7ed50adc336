"""Regular expressions over the whole ``cookie`` header, which say the same as a condition on one cookie.

Envoy's own cookie matchers are not used: a client that does not know them ignores them, and the match widens.
"""

from __future__ import annotations

from controlplane.policy.documents import CookieMatch
from controlplane.resources.regexes import escape, part


def holds(name: str, value: str) -> str:
    """Return a pattern for headers in which a cookie has a value that ``value``, a pattern, matches."""
    return f"(?:.*;)? *{escape(name)}={value} *(?:;.*)?"


def identity(name: str) -> str:
    """Return a pattern for headers with a cookie that is not empty; group 1 is the last such value."""
    return f"^(?:.*;)? *{escape(name)}=([^;]*[^; ]) *(?:;.*)?$"


def pattern(match: CookieMatch) -> str | None:
    """Return a pattern for headers that meet the condition; None if no cookie can."""
    if match.present is not None:
        return holds(match.name, "[^;]*")
    word = match.equals or match.prefix or match.suffix or match.contains
    if word is not None:
        spaced = word.endswith(" ")  # a value never ends with a space
        if ";" in word or (spaced and match.given in ("equals", "suffix")):
            return None
        if spaced:
            before = "" if match.given == "prefix" else "[^;]*"
            return holds(match.name, f"{before}{escape(word)}[^;]*[^; ]")
    return holds(match.name, part(match, ";"))
