"""Argo Rollouts' Rollout with its AnalysisTemplates as a Policy of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from controlplane.peers.reading import Json, Notes, Part
from controlplane.peers.writing import Ladder, all_of, any_of, duration, name_of, percent, policy

WORKLOAD = "is about workloads, which Turnout leaves alone"
COUNTING = "counts measurements; here evidence decides, and missing data never passes"
TEMPLATES = ("AnalysisTemplate", "ClusterAnalysisTemplate")
STRING_MATCHES = {"exact": "equals", "prefix": "prefix", "regex": "regex"}
VERSIONS = {"Latest": "$version", "Stable": "$baseline"}
BOUNDS = {">=": "at_least", ">": "at_least", "<=": "at_most", "<": "at_most"}
OPPOSITE = {"at_least": "at_most", "at_most": "at_least"}
APPROVE: Json = {"role": "releaser"}
_LIMIT = re.compile(r"\s*result(?:\[0\])?\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)\s*")


def read(documents: Mapping[tuple[str, str], Json], notes: Notes, _fleet: str) -> list[Json]:
    """Return our documents for all Rollouts among Argo's documents, by (kind, name)."""
    templates = _Templates(documents, notes)
    return [
        _Rollout(name, body, templates, notes).policy()
        for (kind, name), body in documents.items()
        if kind == "Rollout"
    ]


class _Rollout:
    def __init__(self, name: str, body: Json, templates: _Templates, notes: Notes) -> None:
        self._name, self._templates = name_of(name), templates
        self._whole = Part(f"Rollout/{name}:", body, notes)

    def policy(self) -> Json:
        spec = self._whole.part("spec")
        for key in (
            "replicas", "analysis", "selector", "workloadRef", "template", "minReadySeconds", "restartAt",
            "revisionHistoryLimit", "progressDeadlineSeconds", "progressDeadlineAbort", "rollbackWindow",
        ):  # fmt: skip
            spec.drop(key, WORKLOAD)
        spec.drop("paused", "is a state of one release; `turnout pause` does that")
        strategy = spec.part("strategy")
        blue_green = "blueGreen" in strategy
        part = strategy.part("blueGreen" if blue_green else "canary")
        found = self._blue_green(part) if blue_green else self._canary(part)
        strategy.finish()
        spec.finish()
        self._whole.note(
            "spec", self._name, "became a policy; write the Service with its versions' addresses"
        )
        return found

    def _canary(self, part: Part) -> Json:
        for key in (
            "canaryService", "stableService", "canaryMetadata", "stableMetadata", "maxUnavailable",
            "maxSurge", "scaleDownDelaySeconds", "minPodsPerReplicaSet", "pingPong", "antiAffinity",
            "dynamicStableScale", "scaleDownDelayRevisionLimit", "abortScaleDownDelaySeconds",
        ):  # fmt: skip
            part.drop(key, WORKLOAD)
        part.drop("trafficRouting", "chose a router; here Envoys take their routes from Turnout directly")
        background = part.part("analysis")
        conditions = self._templates.conditions(background)
        background.drop(
            "startingStep", "has no equivalent; conditions of a policy are judged from the first step on"
        )
        background.finish()
        steps = _Steps(self._templates)
        for item in part.parts("steps"):
            steps.add(item)
            item.finish()
        if all_ := steps.ladder.percentage(part, "steps", 100, "all"):
            steps.dress(all_)
            part.note("steps", "100%", "ends every release of ours too; the step 'all' was added")
        part.finish()
        return policy(self._name, steps.ladder.steps, conditions, on_failure={"do": "rollback"})

    def _blue_green(self, part: Part) -> Json:
        for key in (
            "activeService", "previewService", "previewReplicaCount", "scaleDownDelayRevisionLimit",
            "abortScaleDownDelaySeconds", "antiAffinity", "activeMetadata", "previewMetadata",
            "maxUnavailable",
        ):  # fmt: skip
            part.drop(key, WORKLOAD)
        part.drop("prePromotionAnalysis", "measures before users come; use a hook at 'start' for such tests")
        after = part.part("postPromotionAnalysis")
        conditions = self._templates.conditions(after)
        after.finish()
        ladder = Ladder()
        step = ladder.percentage(part, "steps", 100, "all")
        assert step is not None
        waits = part.number("autoPromotionSeconds")
        if part.take("autoPromotionEnabled") is False:
            step["approve"] = APPROVE
        if waits is not None:
            part.note(
                "autoPromotionSeconds", f"{waits:g}", "waited with no traffic; here the switch is immediate"
            )
        guard = duration(part.text("scaleDownDelaySeconds") or "30")
        part.finish()
        return policy(
            self._name, ladder.steps, conditions, on_failure={"do": "rollback"}, guard={"for": guard}
        )


class _Steps:
    """Argo's list of small orders, gathered into steps."""

    def __init__(self, templates: _Templates) -> None:
        self.ladder = Ladder()
        self._templates = templates
        self._approve = False
        self._mirror: Json | None = None

    def add(self, item: Part) -> None:
        """Take one of Argo's steps."""
        if (weight := item.number("setWeight")) is not None:
            self.dress(self.ladder.percentage(item, "setWeight", weight) if weight else None)
        elif "pause" in item:
            self._pause(item, item.part("pause"))
        elif "setHeaderRoute" in item:
            self._header_route(item.part("setHeaderRoute"))
        elif "setMirrorRoute" in item:
            self._mirror_route(item.part("setMirrorRoute"))
        elif "analysis" in item:
            analysis = item.part("analysis")
            found = self._templates.conditions(analysis)
            analysis.finish()
            if self.ladder.steps:
                _append(self.ladder.steps[-1], found)
            elif found:
                item.note("analysis", "analysis", "measures before users come; use a hook at 'start' instead")
        else:
            item.drop("setCanaryScale", WORKLOAD)
            item.drop("replicaProgressThreshold", WORKLOAD)
            item.drop(
                "experiment",
                "starts pods to compare; here the baseline is the stable version, at the same time",
            )
            item.drop("plugin", "is code of your own; use a hook at 'before_step'")

    def dress(self, step: dict[str, object] | None) -> None:
        """Give a new step what was ordered before it."""
        if step is None:
            return
        if self._approve:
            step["approve"] = APPROVE
        if self._mirror:
            step["mirror"] = self._mirror
        self._approve, self._mirror = False, None

    def _pause(self, item: Part, pause: Part) -> None:
        text = pause.text("duration")
        dwell = duration(text) if text else None
        if not text:
            self._approve = True
        elif dwell is None:
            item.note("pause.duration", text, "is not a duration")
        elif self.ladder.steps:
            self.ladder.steps[-1]["for"] = dwell
        else:
            item.note("pause", text, "waits before any traffic; nothing is judged then, so it was left out")
        pause.finish()

    def _header_route(self, route: Part) -> None:
        name, trees = route.text("name"), []
        for match in route.parts("match"):
            header, value = match.text("headerName").lower(), match.part("headerValue")
            trees += _tests(value, {"header": {"name": header}})
            match.finish()
        if trees:
            self.dress(self.ladder.segment(name_of(name), any_of(trees)))
        else:
            route.note(
                "match", name, "is missing and removes the route; our rules stay until the release ends"
            )
        route.finish()

    def _mirror_route(self, route: Part) -> None:
        share, name = route.number("percentage"), route.text("name")
        trees: list[Json] = []
        for match in route.parts("match"):
            parts = [*_method(match), *_tests(match.part("path"), {"path": {}})]
            headers = match.part("headers")
            for header in headers.fields():
                parts += _tests(headers.part(header), {"header": {"name": header.lower()}})
            if parts:
                trees.append(all_of(parts))
            match.finish()
        if not trees:
            route.note(
                "match", name, "is missing and ends the mirroring; a mirror of ours ends with its step"
            )
        else:
            self._mirror = {"segment": any_of(trees), "share": percent(100 if share is None else share)}
        route.finish()


class _Templates:
    """The AnalysisTemplates at hand, as conditions."""

    def __init__(self, documents: Mapping[tuple[str, str], Json], notes: Notes) -> None:
        self._documents, self._notes = documents, notes
        self._names: dict[str, str] = {}  # of queries: one name stands for one query

    def conditions(self, part: Part) -> list[Json]:
        """Return the conditions of an analysis: all its templates, with its arguments filled in."""
        arguments = _arguments(part.parts("args"))
        for key in ("dryRun", "measurementRetention", "analysisRunMetadata"):
            part.drop(key, "has no equivalent; `observe` records a metric without judging by it")
        names = [(item, item.text("templateName")) for item in part.parts("templates")]
        if name := part.text("templateName"):
            names.append((part, name))
        found: list[Json] = []
        for item, name in names:
            item.take("clusterScope")
            body = next(
                (self._documents[kind, name] for kind in TEMPLATES if (kind, name) in self._documents), None
            )
            if body is None:
                item.note("templateName", name, "is not among the files; give the AnalysisTemplate too")
                continue
            spec = Part(f"AnalysisTemplate/{name}:", body, self._notes).part("spec")
            filled = _arguments(spec.parts("args")) | arguments
            for metric in spec.parts("metrics"):
                found += [self._named(condition) for condition in _metric(metric, filled)]
            spec.finish()
        return found

    def _named(self, condition: Json) -> Json:
        body = condition["prometheus"]
        assert isinstance(body, dict)
        query, name = str(body), str(body["name"])
        if query not in self._names:
            taken = self._names.values()
            names = (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3)))
            self._names[query] = next(each for each in names if each not in taken)
        return {**condition, "prometheus": {**body, "name": self._names[query]}}


def _metric(part: Part, arguments: Mapping[str, str]) -> list[Json]:
    name = part.text("name")
    for key in (
        "count",
        "failureLimit",
        "inconclusiveLimit",
        "consecutiveErrorLimit",
        "consecutiveSuccessLimit",
    ):
        part.drop(key, COUNTING)
    every = duration(part.text("interval") or "60s")
    grace = duration(part.text("initialDelay") or "0")
    provider = part.part("provider")
    prometheus = provider.part("prometheus")
    query = _filled(prometheus.text("query"), arguments)
    prometheus.drop("address", "is set once for all: `turnout serve --prometheus ADDRESS`")
    prometheus.drop("timeout", "is the interval: an answer that takes longer is missing data")
    prometheus.finish()
    provider.finish()
    limits = _limits(part, "successCondition") + [
        (OPPOSITE[bound], value) for bound, value in _limits(part, "failureCondition")
    ]
    part.finish()
    if not query:
        part.note(
            "provider", name, "is not a source of Turnout; sources are Envoy, Prometheus, pushed values"
        )
        return []
    if not limits:
        part.note("successCondition", name, "has no limit that we can express, so it cannot decide")
        return []
    found: list[Json] = []
    for bound, value in dict.fromkeys(limits):
        body = {"name": name_of(name, "" if len(limits) == 1 else bound), "query": query, bound: value}
        condition: dict[str, object] = {"prometheus": body | {"every": every}}
        found.append(condition | ({"grace": grace} if grace != "0s" else {}))
    return found


def _limits(part: Part, key: str) -> list[tuple[str, float | int]]:
    """Return the limits in ``result >= 0.95 && result <= 2``, as bounds of ours."""
    text = part.text(key)
    found: list[tuple[str, float | int]] = []
    for piece in text.split("&&") if text else ():
        match = _LIMIT.fullmatch(piece)
        if match is None:
            part.note(
                key, text, "is an expression; only comparisons of `result` with a number have an equivalent"
            )
            return []
        value = float(match[2])
        found.append((BOUNDS[match[1]], int(value) if value == int(value) else value))
    return found


def _arguments(parts: list[Part]) -> dict[str, str]:
    found = {}
    for part in parts:
        name, value = part.text("name"), part.text("value")
        origin = part.part("valueFrom")
        if version := VERSIONS.get(origin.text("podTemplateHashValue")):
            value = version
        origin.finish()
        part.finish()
        if value:
            found[name] = value
    return found


def _filled(query: str, arguments: Mapping[str, str]) -> str:
    text = re.sub(r"\{\{\s*args\.([\w.-]+)\s*\}\}", lambda found: arguments.get(found[1], found[0]), query)
    return " ".join(text.split())


def _method(match: Part) -> list[Json]:
    value = match.part("method")
    exact = value.text("exact")
    for key in ("prefix", "regex"):
        value.drop(key, "has no equivalent; a method is matched as a whole")
    value.finish()
    return [{"method": exact}] if exact else []


def _tests(value: Part, atom: Json) -> list[Json]:
    """Return the atom with each test of a foreign string match."""
    kind, base = next(iter(atom.items()))
    assert isinstance(base, Mapping)
    found: list[Json] = [
        {kind: {**base, ours: text}}
        for theirs, ours in STRING_MATCHES.items()
        if (text := value.text(theirs))
    ]
    value.finish()
    return found


def _append(step: dict[str, object], conditions: list[Json]) -> None:
    if conditions:
        before = step.get("conditions", [])
        assert isinstance(before, list)
        step["conditions"] = [*before, *(each for each in conditions if each not in before)]
