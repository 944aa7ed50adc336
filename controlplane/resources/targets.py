"""Regular expressions over the request's target, the ``:path`` header, and over its host.

A query stays as it was sent: nothing is decoded. Envoy's own query matchers are not used: they look at the
first value only, cannot be inverted, and a client that does not know them ignores them.
"""

from __future__ import annotations

import re

from controlplane.policy.documents import PathMatch, QueryMatch
from controlplane.resources.regexes import escape, part

_QUERY = "(?:[?].*)?"


def query(match: QueryMatch) -> str:
    """Return a pattern for targets whose query meets the condition; a parameter without ``=`` is empty."""
    name = escape(match.name)
    if match.present is not None:
        return _parameter(f"{name}(?:=[^&]*)?")
    value = part(match, "&")
    bare = match.regex is not None and re.fullmatch(match.regex, "", re.ASCII)
    return _parameter(f"{name}(?:={value})?" if bare else f"{name}={value}")


def holds(name: str, value: str) -> str:
    """Return a pattern for targets in which a parameter has a value that ``value``, a pattern, matches."""
    return _parameter(f"{escape(name)}={value}")


def identity(name: str) -> str:
    """Return a pattern for targets with a parameter that is not empty; group 1 is the last such value."""
    return f"^[^?]*[?](?:.*&)?{escape(name)}=([^&]+)(?:&.*)?$"


def path(match: PathMatch) -> str:
    """Return a pattern for targets whose path meets the condition."""
    return part(match, "?") + _QUERY


def host(name: str) -> str:
    """Return a pattern for hosts, in any case, with or without a port; ``*.suffix`` is any host below it."""
    letters = "".join(f"[{c}{c.upper()}]" if c.isalpha() else escape(c) for c in name.removeprefix("*"))
    return f"{'.+' if name[0] == '*' else ''}{letters}(?::[0-9]+)?"


def _parameter(pair: str) -> str:
    return f"[^?]*[?](?:.*&)?{pair}(?:&.*)?"
