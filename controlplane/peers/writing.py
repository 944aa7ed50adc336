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
LONGEST = timedelta(days=366)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def name_of(*words: str) -> str:
    """Return a name of ours made of foreign words; never empty."""
    text = re.sub(r"[^a-z0-9.-]+", "-", "-".join(word for word in words if word).lower()).strip("-.")
    return text[:63].strip("-.") or "imported"


def percent(share: float) -> str:
    """Return a share in percent as we write it, rounded to 0.01 %."""
    return format_share(round(share * 100) * 100)


def duration(text: object) -> str | None:
    """Return a Go duration, or seconds as a number, in our spelling; None if neither, or over a year."""
    written = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", written):
        written += "s"
    pieces = _DURATION.findall(written)
    if not pieces or "".join(number + unit for number, unit in pieces) != written:
        return None
    if (seconds := _seconds(written)) > LONGEST.total_seconds():
        return None
    return format_duration(timedelta(seconds=seconds))


def dwell(part: Part, key: str, otherwise: str = "") -> str:
    """Return a field's duration in our spelling; ``otherwise`` if there is none, or, with a note, no time."""
    text = part.text(key)
    found = duration(text) if text else otherwise
    if found is None:
        part.note(
            key, text, "is not a duration of up to a year" + (f"; {otherwise} was taken" if otherwise else "")
        )
    return found or otherwise


def times(text: str, factor: float) -> str | None:
    """Return a duration of ours, that often; None if that is over a year."""
    seconds = _seconds(text) * factor
    return format_duration(timedelta(seconds=seconds)) if seconds <= LONGEST.total_seconds() else None


def total(*texts: str) -> str:
    """Return durations of ours together."""
    return format_duration(timedelta(seconds=sum(map(_seconds, texts))))


def _seconds(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


@dataclass(slots=True)
class Variables:
    """Values that a text has places for, found by a pattern whose first group is the name."""

    pattern: re.Pattern[str]
    values: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def fill(self, text: str) -> str:
        """Return a text with its places filled in; those of no value stay."""
        return self.pattern.sub(self._value, text)

    def unused(self) -> set[str]:
        """Return the names that no text had a place for."""
        return self.values.keys() - self.used

    def _value(self, place: re.Match[str]) -> str:
        if place[1] not in self.values:
            return place[0]
        self.used.add(place[1])
        return self.values[place[1]]


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
    largest: dict[str, float] = field(default_factory=dict)  # shares of named segments

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
