"""Vamp's release policies, JSON of the release agent (v1) and of Vamp Cloud (v2), as Policies of ours.

Vamp gives matching users the strength ``s`` and everybody the weight ``w``: a matching user gets the new
version with ``s + (1 - s) * w``, another with ``w``. Ours are a step of the segment and one of everyone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from controlplane.peers.reading import Json, Notes, Part
from controlplane.peers.vamp_conditions import ConditionError, condition
from controlplane.peers.writing import Ladder, duration, dwell, name_of, percent, policy, total

WORKLOAD = "is about workloads, which Turnout leaves alone"
BUDGET = "tolerates failed samples; here evidence decides, whatever the number of samples"
SUCCESS, REQUESTS = "successrate", "requests"
_COMPARISON = re.compile(r"\s*(\w+)\s*(>=|<=|==|>|<)\s*(?:baselines\.(\w+)|(-?\d+(?:\.\d+)?|\d+\w+))\s*")
STRENGTHS = ("conditionStrength", "condition_strength")
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
        self._baselines: dict[str, Part] = {}
        self._limits: dict[str, str] = {}  # of the baselines
        self._metrics: dict[str, str] = {}
        self._used: set[str] = set()  # baselines

    def policy(self) -> Json:
        part = self._part
        if (kind := part.text("type")) != "release":
            part.note(
                "type",
                kind,
                "is not a release policy; a validation runs without users: use a hook at 'start'",
            )
        part.take("name" if "name" in part else "id")
        for key in ("id", "version"):
            part.drop(key, "is a number of Vamp's own")
        self._read_names()
        ladder = Ladder()
        for item in part.parts("steps"):
            self._step(item, ladder)
        if ladder.percentage(part, "steps", 100, "all"):
            part.note("steps", "100%", "is where a release of Vamp ended; the step 'all' was added")
        hooks = [hook for item in part.parts("onSuccess") if (hook := _hook(item))]
        for name in sorted(self._baselines.keys() - self._used):
            self._baselines[name].leave("name", name, "is used by nothing that was carried over")
        return policy(self._name, ladder.steps, [], on_failure={"do": "rollback"}, hooks=hooks)

    def _read_names(self) -> None:
        for item in self._part.parts("baselines"):
            name = item.text("name")
            self._baselines[name], self._limits[name] = item, item.text("value")
            item.drop("metric", "is said by the condition that uses it")
        for item in self._part.parts("metrics"):
            name, value = item.text("name"), item.part("value")
            self._metrics[name] = (value.text("type") or name).lower().replace(" ", "")
            value.drop("source", "is Envoy itself: it counts every request")
            item.drop("type", "is how often Vamp measured")
            if self._metrics[name] not in (SUCCESS, REQUESTS):
                item.leave("name", name, WORKLOAD)

    def _step(self, part: Part, ladder: Ladder) -> None:
        named = part.text("name")
        for label in part.parts("segmentation"):
            label.drop("name", "is only a label")
        source, target = part.part("source"), part.part("target")
        weight = target.number("weight") or 0.0
        rest = source.number("weight")
        if rest is not None and rest != 100 - weight:
            source.note("weight", f"{rest:g}", "and the target's are not 100; the target's was taken")
        made = self._shares(part, target, ladder, weight, named)
        for step in made:
            if named and step["name"] != name_of(named):
                part.note("name", named, f"became step {step['name']!r}")
        if not made:
            part.note("target", named or "step", "gives nobody more; what it says is about the step before")
            made = ladder.steps[-1:]
        self._judge(part, made)

    def _shares(
        self, part: Part, target: Part, ladder: Ladder, weight: float, named: str
    ) -> list[dict[str, object]]:
        text, made = target.text("condition"), []
        tree = self._tree(target, text) if text else None
        if tree is None:
            for key in STRENGTHS:
                target.drop(key, "says nothing without a condition")
        else:
            given = [target.number(key) for key in STRENGTHS]
            strength = next((each for each in given if each is not None), 100.0)
            name = self._named(text, tree)
            made.append(self._segment(target, ladder, name, strength + (100 - strength) * weight / 100))
        if weight:
            made.append(ladder.percentage(target, "weight", weight, "" if text or not named else named))
        steps = [step for step in made if step is not None]
        if len(steps) > 1:
            part.note("target", text, "with a weight became two steps: its segment, then everyone")
        return steps

    def _judge(self, part: Part, steps: list[dict[str, object]]) -> None:
        """Give steps the time and the conditions of one of Vamp's, besides what they have."""
        if not steps:
            for key in ("endAfter", "conditions"):
                part.drop(key, "is about a step in which nobody has the new version")
            return
        time, conditions = self._time(part.part("endAfter")), self._conditions(part.parts("conditions"))
        if time:
            steps[-1]["for"] = total(str(steps[-1].get("for", "0s")), time)
        for step in steps:
            before = step.get("conditions", [])
            assert isinstance(before, list)
            if conditions:
                step["conditions"] = [*before, *(each for each in conditions if each not in before)]

    @staticmethod
    def _tree(target: Part, text: str) -> Json | None:
        try:
            return condition(text)
        except ConditionError as error:
            target.note("condition", text, f"cannot be translated, so this segment is missing: {error}")
            return None

    def _named(self, text: str, tree: Json) -> str:
        """Return the name of a condition's segment; each tree has one of its own."""
        short = _segment_name(text)
        for name in (short, *(f"{short}-{i}" for i in range(2, len(self.segments) + 3))):
            document = {"kind": "Segment", "name": name, "match": tree}
            if self.segments.setdefault(name, document) == document:
                return name
        raise AssertionError(short)

    @staticmethod
    def _segment(target: Part, ladder: Ladder, name: str, share: float) -> dict[str, object] | None:
        """Add a step of a segment; None, with a note, if its share would not grow."""
        before = ladder.largest.get(name, 0.0)
        if share <= before:
            if share < before:
                target.note(
                    "condition",
                    f"{name}: {share:g}%",
                    "would shrink the canary's share of it; our steps only grow",
                )
            return None
        ladder.largest[name] = share
        return ladder.segment(name, name, share)

    def _time(self, part: Part) -> str:
        longest = dwell(part, "maxDuration")
        value = part.text("value")
        match = _COMPARISON.fullmatch(value) if value else None
        if match and match[1] == "duration":
            found = duration(self._limit(match)) or ""
            if longest and found:
                part.note("maxDuration", longest, f"is not the value, {found}, which was taken")
            longest = found or longest
        if value and not (match and match[1] == "duration" and longest):
            part.note("value", value, "is an expression; only 'duration == …' has an equivalent")
        return longest

    def _limit(self, match: re.Match[str]) -> str:
        """Return what a comparison is with: a number, or a baseline."""
        if not match[3]:
            return match[4]
        self._used.add(match[3])
        return self._limits.get(match[3], "")

    def _conditions(self, parts: list[Part]) -> list[Json]:
        found = []
        for part in parts:
            made = self._condition(part)
            if made is not None:
                grace = dwell(part, "gracePeriod", "0s")
                found.append({**made, "grace": grace} if grace != "0s" else made)
                part.drop("budget", BUDGET)
                part.drop("interval", BUDGET)
                part.drop("name", "is only a name")
        return found

    def _condition(self, part: Part) -> Json | None:
        if value := part.text("value"):
            match = _COMPARISON.fullmatch(value)
            if match is None:
                part.leave("value", value, "is an expression; only one comparison has an equivalent")
                return None
            metric, operator = match[1], match[2]
        else:
            match = None
            metric, limit = part.text("metric"), part.text("threshold")
            operator = OPERATORS.get(part.text("operator") or "le", "")
        kind = self._metrics.get(metric, metric).lower()
        key, shown = ("value", value) if value else ("metric", metric)
        known = next((name for name in (SUCCESS, REQUESTS) if name in (kind, metric.lower())), "")
        if not known or operator not in (">=", ">"):
            part.leave(
                key, shown, WORKLOAD if not known else "is an upper limit; only lower ones have an equivalent"
            )
            return None
        limit = self._limit(match) if match else limit
        try:
            number = float(limit)
        except ValueError:
            part.leave(key, shown, f"has no limit that can be read: {limit!r}")
            return None
        if known == SUCCESS:
            return {"success_rate": {"at_least": percent(number)}}
        if number <= 0:
            part.leave(key, shown, "is always true")
            return None
        return {"requests": {"at_least": int(number)}}


def _hook(part: Part) -> Json | None:
    kind, value = part.text("type"), part.part("value")
    url = value.text("url")
    value.drop("httpRequest", "is always POST")
    if kind != "http" or not url:
        part.leave("type", kind, "is not an HTTP request")
        return None
    value.hide("headers", "are not sent; credentials do not belong into a policy")
    return {"at": "end", "url": url}


def _segment_name(text: str) -> str:
    return name_of(re.sub(r"[^A-Za-z0-9]+", "-", text))[:40].strip("-") or "segment"
