"""Vamp's release policies, JSON of the release agent (v1) and of Vamp Cloud (v2), as Policies of ours.

Vamp gives matching users the strength ``s`` and everybody the weight ``w``: a matching user gets the new
version with ``s + (1 - s) * w``, another with ``w``. Ours are a step of the segment and one of everyone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from controlplane.peers.reading import Json, Notes, Part
from controlplane.peers.vamp_conditions import ConditionError, condition
from controlplane.peers.writing import Ladder, duration, name_of, percent, policy

WORKLOAD = "is about workloads, which Turnout leaves alone"
BUDGET = "tolerates failed samples; here evidence decides, whatever the number of samples"
SUCCESS, REQUESTS = "successrate", "requests"
_COMPARISON = re.compile(r"\s*(\w+)\s*(>=|<=|==|>|<)\s*(?:baselines\.(\w+)|(-?\d+(?:\.\d+)?|\d+\w+))\s*")
OPERATORS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "eq": "=="}


def read(documents: Mapping[tuple[str, str], Json], notes: Notes, _fleet: str) -> list[Json]:
    """Return our documents for all release policies among Vamp's documents."""
    found: list[Json] = []
    for (_, name), body in documents.items():
        reader = _Policy(name, body, notes)
        policy = reader.policy()
        found += [*reader.segments.values(), policy]
    return found


class _Policy:
    def __init__(self, name: str, body: Json, notes: Notes) -> None:
        self._part = Part(f"policy/{name}:", body, notes)
        self._name = name_of(name if not name.isdigit() else f"vamp-{name}")
        self.segments: dict[str, Json] = {}  # by name: a segment of several steps is one
        self._baselines: dict[str, str] = {}
        self._metrics: dict[str, str] = {}

    def policy(self) -> Json:
        part = self._part
        if (kind := part.text("type")) != "release":
            part.note(
                "type",
                kind,
                "is not a release policy; a validation runs without users: use a hook at 'start'",
            )
        for key in ("name", "id", "version"):
            part.take(key)
        self._read_names()
        ladder = Ladder()
        for item in part.parts("steps"):
            self._step(item, ladder)
        if ladder.percentage(part, "steps", 100, "all"):
            part.note("steps", "100%", "is where a release of Vamp ended; the step 'all' was added")
        hooks = [hook for item in part.parts("onSuccess") if (hook := _hook(item))]
        part.finish()
        return policy(self._name, ladder.steps, [], on_failure={"do": "rollback"}, hooks=hooks)

    def _read_names(self) -> None:
        for item in self._part.parts("baselines"):
            self._baselines[item.text("name")] = item.text("value")
            item.take("metric")
            item.finish()
        for item in self._part.parts("metrics"):
            name, value = item.text("name"), item.part("value")
            self._metrics[name] = (value.text("type") or name).lower().replace(" ", "")
            value.take("source")
            item.take("type")
            item.finish()

    def _step(self, part: Part, ladder: Ladder) -> None:
        named = part.text("name")
        for label in part.parts("segmentation"):
            label.take("name")
        source, target = part.part("source"), part.part("target")
        source.take("weight")
        weight = target.number("weight") or 0.0
        text = target.text("condition")
        strength = target.number("conditionStrength")
        strength = strength if strength is not None else target.number("condition_strength")
        target.finish()
        source.finish()
        made = []
        if text:
            share = 100.0 if strength is None else strength
            made.append(self._segment(target, ladder, text, share + (100 - share) * weight / 100))
        if weight:
            made.append(ladder.percentage(target, "weight", weight, "" if text or not named else named))
        steps = [step for step in made if step is not None]
        if len(steps) > 1:
            part.note("target", text, "with a weight became two steps: its segment, then everyone")
        dwell, conditions = self._dwell(part.part("endAfter")), self._conditions(part.parts("conditions"))
        for step in steps:
            if dwell and step is steps[-1]:
                step["for"] = dwell
            if conditions:
                step["conditions"] = conditions
        part.finish()

    def _segment(self, target: Part, ladder: Ladder, text: str, share: float) -> dict[str, object] | None:
        try:
            tree = condition(text)
        except ConditionError as error:
            target.note("condition", text, f"cannot be translated, so this segment is missing: {error}")
            return None
        name = _segment_name(text)
        self.segments[name] = {"kind": "Segment", "name": name, "match": tree}
        last = next((step for step in reversed(ladder.steps) if step.get("segment") == name), None)
        if last is not None and last["share"] == percent(share):
            return None
        return ladder.segment(name, name, share)

    def _dwell(self, part: Part) -> str | None:
        text = part.text("maxDuration")
        if value := part.text("value"):
            match = _COMPARISON.fullmatch(value)
            if match and match[1] == "duration":
                text = self._baselines.get(match[3] or "", "") or match[4] or ""
            if not text:
                part.note("value", value, "is an expression; only 'duration == …' has an equivalent")
        part.finish()
        return duration(text) if text else None

    def _conditions(self, parts: list[Part]) -> list[Json]:
        found = []
        for part in parts:
            grace = duration(part.text("gracePeriod") or "0")
            made = self._condition(part)
            if made is not None:
                found.append({**made, "grace": grace} if grace != "0s" else made)
            part.drop("budget", BUDGET)
            part.drop("interval", BUDGET)
            part.take("name")
            part.finish()
        return found

    def _condition(self, part: Part) -> Json | None:
        if value := part.text("value"):
            match = _COMPARISON.fullmatch(value)
            if match is None:
                part.note("value", value, "is an expression; only one comparison has an equivalent")
                return None
            metric, operator = match[1], match[2]
            limit = self._baselines.get(match[3], "") if match[3] else match[4]
        else:
            metric, limit = part.text("metric"), part.text("threshold")
            operator = OPERATORS.get(part.text("operator") or "le", "")
        kind = self._metrics.get(metric, metric).lower()
        key, shown = ("value", value) if value else ("metric", metric)
        known = next((name for name in (SUCCESS, REQUESTS) if name in (kind, metric.lower())), "")
        if not known or operator not in (">=", ">"):
            part.note(
                key, shown, WORKLOAD if not known else "is an upper limit; only lower ones have an equivalent"
            )
            return None
        try:
            number = float(limit)
        except ValueError:
            part.note(key, shown, f"has no limit that can be read: {limit!r}")
            return None
        if known == SUCCESS:
            return {"success_rate": {"at_least": percent(number)}}
        if number <= 0:
            part.note(key, shown, "is always true")
            return None
        return {"requests": {"at_least": int(number)}}


def _hook(part: Part) -> Json | None:
    kind, value = part.text("type"), part.part("value")
    url = value.text("url")
    value.drop("httpRequest", "is always POST")
    if value.take("headers"):
        value.note("headers", "headers", "are not sent; credentials do not belong into a policy")
    value.finish()
    part.finish()
    if kind != "http" or not url:
        part.note("type", kind, "is not an HTTP request")
        return None
    return {"at": "end", "url": url}


def _segment_name(text: str) -> str:
    return name_of(re.sub(r"[^A-Za-z0-9]+", "-", text))[:40].strip("-") or "segment"
