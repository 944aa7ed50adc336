"""Browsers by name: what their ``user-agent`` headers have, and what those of their imitators have too.

Nearly every browser claims to be several others, so a name is two patterns: one that must match, and one
that must not. Both are published in docs/segments.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controlplane.policy.documents import HeaderMatch, Match

# Other browsers built from Chromium or for iOS, and web views inside of apps.
_OTHERS = "Edg|EdgA|EdgiOS|Edge|OPR|OPX|OPiOS|OPT|Opera|SamsungBrowser|YaBrowser|Vivaldi|UCBrowser|DuckDuckGo"

PATTERNS: Final[Mapping[str, tuple[str, str | None]]] = {
    "Chrome": (r".* (?:Chrome|CriOS)/[0-9].*", rf".*(?: (?:{_OTHERS})/|; wv[)]).*"),
    "Edge": (r".* (?:Edg|EdgA|EdgiOS|Edge)/[0-9].*", None),
    "Firefox": (r".* (?:Firefox|FxiOS)/[0-9].*", r".* (?:SeaMonkey|PaleMoon|Waterfox)/.*"),
    "Safari": (
        r".* Version/[0-9.]+ (?:Mobile/[0-9A-Za-z]+ )?Safari/[0-9].*",
        rf".*(?: (?:Chrome|Chromium|CriOS|FxiOS|{_OTHERS})/|Android|Tizen).*",
    ),
}


def _tree(pattern: str, but: str | None) -> Match:
    header = Match(header=HeaderMatch(name="user-agent", regex=pattern))
    if but is None:
        return header
    imitator = Match(header=HeaderMatch(name="user-agent", regex=but))
    return Match(all=(header, Match(not_=imitator)))


AGENTS: Final[Mapping[str, Match]] = {name: _tree(*patterns) for name, patterns in PATTERNS.items()}
