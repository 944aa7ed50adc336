"""Pieces of our own documents, as plain data in the spelling that operators write."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.peers.reading import Json, Part
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.values import format_duration, format_share

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def name_of(*words: str) -> str:
    """Return a name of ours made of foreign words; never empty."""
    text = re.sub(r"[^a-z0-9.-]+", "-", "-".join(word for word in words if word).lower()).strip("-.")
    return text[:63].strip("-.") or "imported"


def percent(share: float) -> str:
    """Return a share in percent as we write it, rounded to 0.01 %."""
    return format_share(round(share * 100) * 100)


def duration(text: object) -> str | None:
    """Return a Go duration, or seconds as a number, in our spelling; None if it is neither."""
    written = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", written):
        written += "s"
    pieces = _DURATION.findall(written)
    if not pieces or "".join(number + unit for number, unit in pieces) != written:
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
    return format_duration(timedelta(seconds=seconds))


def times(text: str, factor: float) -> str:
    """Return a duration of ours, that often."""
    seconds = sum(float(n) * _UNITS[u] for n, u in _DURATION.findall(text))
    return format_duration(timedelta(seconds=seconds * factor))


def latency(part: Part, key: str, ms: float, percentile: str = "p99") -> Json:
    """Return a latency limit on the next bucket edge; says so where the limit lay between two."""
    edge = EDGES_MS[min(bisect_left(EDGES_MS, ms), len(EDGES_MS) - 1)]
    if edge != ms:
        part.note(key, f"{ms:g}ms", f"lies between bucket edges; {edge}ms was written")
    return {"latency": {percentile: format_duration(timedelta(milliseconds=edge))}}


def any_of(matches: list[Json]) -> Json:
    """Return a tree that holds if one of the matches does."""
    return matches[0] if len(matches) == 1 else {"any": matches}


def all_of(matches: list[Json]) -> Json:
    """Return a tree that holds if all of the matches do."""
    return matches[0] if len(matches) == 1 else {"all": matches}


@dataclass(slots=True)
class Ladder:
    """Steps in order; shares only grow, as our policies demand."""

    steps: list[dict[str, object]] = field(default_factory=list)
    everyone: float = 0.0

    def percentage(self, part: Part, key: str, share: float, name: str = "") -> dict[str, object] | None:
        """Add a step of everyone, in percent; None, with a note, if it would not grow."""
        share = min(share, 100.0)
        if share <= self.everyone:
            if share < self.everyone:
                part.note(key, f"{share:g}%", "would shrink the canary's share; our steps only grow")
            return None
        self.everyone = share
        step: dict[str, object] = {
            "name": self._free(name_of(name) if name else f"share-{share:g}".replace(".", "-")),
            "everyone": percent(share),
        }
        self.steps.append(step)
        return step

    def segment(self, name: str, match: Json | str, share: float = 100.0) -> dict[str, object]:
        """Add a step of a segment, in percent of it."""
        step: dict[str, object] = {"name": self._free(name), "segment": match, "share": percent(share)}
        self.steps.append(step)
        return step

    def _free(self, name: str) -> str:
        taken = {step["name"] for step in self.steps}
        candidates = (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3)))
        return next(candidate for candidate in candidates if candidate not in taken)


def policy(name: str, steps: list[dict[str, object]], conditions: list[Json], **more: object) -> Json:
    """Return a policy; fields that are empty are left out."""
    kept: Mapping[str, object] = {key: value for key, value in more.items() if value}
    return {"kind": "Policy", "name": name, "steps": steps, "conditions": conditions, **kept}
