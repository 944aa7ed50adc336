"""Which resources a refusal is about, as far as its words tell."""

from __future__ import annotations

import re
from collections.abc import Iterable


def blamed(names: Iterable[str], words: str) -> list[str]:
    """Return the names that the words of a refusal give: Envoy writes ``name: why``, others quote them.

    It is a hint, for what to try first; some clients give none.
    """
    return [name for name in names if name in words and _given(name, words)]


def _given(name: str, words: str) -> bool:
    plain = re.escape(name)
    return re.search(rf"(?<![\w~.\-/]){plain}:(?=\s)|(['\"]){plain}\1", words) is not None
