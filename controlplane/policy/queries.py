"""What may stand in a Prometheus query for the release that asks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from controlplane.policy.problems import meant

NAMES: Final = ("service", "version", "baseline", "segment")
PLACE: Final = re.compile(rf"\$({'|'.join(NAMES)})\b")

_NAMED = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")
_GROUP = re.compile(r"\(\?P?<(\w+)>")  # of a regular expression, which label_replace may refer to


def unknown(query: str) -> Iterator[str]:
    """Yield what looks like a place to fill in and is none: Prometheus would be sent it as it stands.

    ``$1`` and the names of groups are what ``label_replace`` puts in, with or without braces.
    """
    known = {*_GROUP.findall(query)}
    places = [f"${name}" for name in NAMES]
    for braced, bare in dict.fromkeys(_NAMED.findall(query)):
        name = braced or bare
        if name.isdigit() or name in known or bare in NAMES:
            continue
        if braced in NAMES:
            yield f"${{{name}}} is sent as it stands; write ${name}, without braces"
        else:
            wrong = f"${{{name}}}" if braced else f"${name}"
            hint = meant(f"${name}", places)
            yield f"{wrong} is sent as it stands; filled in are {', '.join(places)}{hint}"
