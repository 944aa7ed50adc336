"""Argo Rollouts' Rollout with its AnalysisTemplates as a Policy of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from controlplane.peers.reading import Documents, Json, Notes, Part, opened
from controlplane.peers.writing import (
    Ladder,
    Variables,
    all_of,
    any_of,
    dwell,
    name_of,
    percent,
    policy,
    total,
)

WORKLOAD = "is about workloads, which Turnout leaves alone"
COUNTING = "counts measurements; here evidence decides, and missing data never passes"
TEMPLATES = ("AnalysisTemplate", "ClusterAnalysisTemplate")
STRING_MATCHES = {"exact": "equals", "prefix": "prefix", "regex": "regex"}
VERSIONS = {"Latest": "$version", "Stable": "$baseline"}
BOUNDS = {">=": "at_least", ">": "at_least", "<=": "at_most", "<": "at_most"}
OPPOSITE = {"at_least": "at_most", "at_most": "at_least"}
APPROVE: Json = {"role": "releaser"}
LONELY = "ended before a step of ours began, so nothing is mirrored"
_PLACE = re.compile(r"\{\{\s*args\.([\w.-]+)\s*\}\}")
_LIMIT = re.compile(r"\s*result(?:\[0\])?\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)\s*")


def read(documents: Documents, notes: Notes, _fleet: str) -> list[Json]:
    """Return our documents for all Rollouts among Argo's documents."""
    templates = _Templates(documents, notes)
    found = [
        _Rollout(name, body, templates, notes).policy()
        for (kind, name), body in documents.items()
        if kind == "Rollout"
    ]
    templates.finish()
    return found


class _Rollout:
    def __init__(self, name: str, body: Json, templates: _Templates, notes: Notes) -> None:
        self._name, self._templates = name_of(name), templates
        _, self._spec = opened("Rollout", name, body, notes)

    def policy(self) -> Json:
        spec = self._spec
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
        strategy.note(
            "blueGreen" if blue_green else "canary",
            self._name,
            "became a policy; write the Service with its versions' addresses",
        )
        return found

    def _canary(self, part: Part) -> Json:
        for key in (
            "canaryService", "stableService", "canaryMetadata", "stableMetadata", "maxUnavailable",
            "maxSurge", "scaleDownDelaySeconds", "minPodsPerReplicaSet", "pingPong", "antiAffinity",
            "dynamicStableScale", "scaleDownDelayRevisionLimit", "abortScaleDownDelaySeconds",
        ):  # fmt: skip
            part.drop(key, WORKLOAD)
        whole = 100.0
        if "trafficRouting" in part:
            routing = part.part("trafficRouting")
            whole = routing.number("maxTrafficWeight") or whole
            for router in routing.fields():
                routing.drop(router, "chose a router; here Envoys take their routes from Turnout directly")
        background = part.part("analysis")
        conditions = self._templates.conditions(background)
        background.drop(
            "startingStep", "has no equivalent; conditions of a policy are judged from the first step on"
        )
        steps = _Steps(self._templates, whole)
        for item in part.parts("steps"):
            steps.add(item)
        steps.end(part)
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
        guard = dwell(part, "scaleDownDelaySeconds", "30s")
        return policy(
            self._name, ladder.steps, conditions, on_failure={"do": "rollback"}, guard={"for": guard}
        )


class _Steps:
    """Argo's list of small orders, gathered into steps."""

    def __init__(self, templates: _Templates, whole: float) -> None:
        self.ladder = Ladder()
        self._templates = templates
        self._whole = whole  # the weight that is all traffic
        self._approve: Part | None = None  # the pause that asks for it
        self._mirrors: dict[str, tuple[Json, Part]] = {}  # those that are on, by route
        self._mirrored: set[str] = set()  # those of them that some step has

    def add(self, item: Part) -> None:
        """Take one of Argo's steps."""
        if (weight := item.number("setWeight")) is not None:
            self._weight(item, weight * 100 / self._whole)
        elif "pause" in item:
            self._pause(item, item.part("pause"))
        elif "setHeaderRoute" in item:
            self._header_route(item, item.part("setHeaderRoute"))
        elif "setMirrorRoute" in item:
            self._mirror_route(item, item.part("setMirrorRoute"))
        elif "analysis" in item and self.ladder.steps:
            _append(self.ladder.steps[-1], self._templates.conditions(item.part("analysis")))
        else:
            item.drop("analysis", "measures before users come; use a hook at 'start' instead")
            item.drop("setCanaryScale", WORKLOAD)
            item.drop("replicaProgressThreshold", WORKLOAD)
            item.drop(
                "experiment",
                "starts pods to compare; here the baseline is the stable version, at the same time",
            )
            item.drop("plugin", "is code of your own; use a hook at 'before_step'")

    def end(self, part: Part) -> None:
        """Add the last step, and note what came to nothing."""
        if all_ := self.ladder.percentage(part, "steps", 100, "all"):
            self._dress(all_)
            part.note("steps", "100%", "ends every release of ours too; the step 'all' was added")
        if self._approve is not None:
            self._approve.note(
                "pause",
                "{}",
                "asks for an approval when everybody has the canary already; nothing asks for it here: give"
                " the policy a `point_of_no_return` with an approval, or approve the last step",
            )
        for name in list(self._mirrors):
            self._stop(name)

    def _weight(self, item: Part, share: float) -> None:
        if share or self.ladder.everyone:
            self._dress(self.ladder.percentage(item, "setWeight", share))
        else:
            item.note("setWeight", "0", "gives nobody the canary, so it became no step")

    def _dress(self, step: dict[str, object] | None) -> None:
        """Give a new step what was ordered before it."""
        if step is None:
            return
        if self._approve is not None:
            step["approve"] = APPROVE
        self._approve = None
        self._reflect(step)

    def _reflect(self, step: dict[str, object]) -> None:
        """Give a step the mirror that is on; where everybody has the canary there is nothing to mirror."""
        if step.get("everyone") == "100%":
            return
        for name, (mirror, route) in self._mirrors.items():
            if step.setdefault("mirror", mirror) != mirror:
                route.note("match", name, "is a second mirror at a time; a step of ours has one")
            self._mirrored.add(name)

    def _pause(self, item: Part, pause: Part) -> None:
        if "duration" not in pause:
            if self._approve is not None:
                item.note("pause", "{}", "asks a second time before one step; one approval was written")
            self._approve = item
            return
        if not self.ladder.steps:
            pause.drop("duration", "waits before any traffic; nothing is judged then, so it was left out")
        elif time := dwell(pause, "duration"):
            step = self.ladder.steps[-1]
            step["for"] = total(str(step.get("for", "0s")), time)
            self._reflect(step)

    def _header_route(self, item: Part, route: Part) -> None:
        name, trees = route.text("name"), []
        for match in route.parts("match"):
            header, value = match.text("headerName").lower(), match.part("headerValue")
            tests = _tests(value, {"header": {"name": header}})
            if not tests:
                match.leave("headerName", header, "is tested for nothing that we know")
            trees += tests
        if trees:
            self._dress(self.ladder.segment(name_of(name), any_of(trees)))
        else:
            item.note(
                "setHeaderRoute", name, "has no match and removes the route; ours stay until the release ends"
            )

    def _mirror_route(self, item: Part, route: Part) -> None:
        name, matches = route.text("name"), route.parts("match")
        if not matches:
            route.drop("percentage", "says nothing without a match")
            if name in self._mirrors:
                self._stop(name)
            else:
                item.note("setMirrorRoute", name, "ends a mirror that was not on")
            return
        if trees := [tree for match in matches if (tree := _mirrored(match))]:
            share = route.number("percentage")
            mirror = {"segment": any_of(trees), "share": percent(100 if share is None else share)}
            if name in self._mirrors:
                self._stop(name)
            self._mirrors[name] = (mirror, route)
        else:
            route.leave("name", name, "became nothing, since none of its matches did")

    def _stop(self, name: str) -> None:
        _, route = self._mirrors.pop(name)
        if name not in self._mirrored:
            route.leave("name", name, LONELY)
        self._mirrored.discard(name)


class _Templates:
    """The AnalysisTemplates at hand, as conditions."""

    def __init__(self, documents: Documents, notes: Notes) -> None:
        self._documents, self._notes = documents, notes
        self._names: dict[str, str] = {}  # of queries: one name stands for one query
        self._used: set[tuple[str, str]] = set()

    def conditions(self, part: Part) -> list[Json]:
        """Return the conditions of an analysis: all its templates, with its arguments filled in."""
        arguments = part.parts("args")
        names = [argument.text("name") for argument in arguments]
        given = _arguments(arguments, names)
        for key in ("dryRun", "measurementRetention", "analysisRunMetadata"):
            part.drop(key, "has no equivalent; `observe` records a metric without judging by it")
        templates = [(item, item.text("templateName")) for item in part.parts("templates")]
        if name := part.text("templateName"):
            templates.append((part, name))
        found: list[Json] = []
        for item, name in templates:
            kind, other = TEMPLATES if item.take("clusterScope") is not True else reversed(TEMPLATES)
            if (kind, name) not in self._documents and (other, name) in self._documents:
                item.note("clusterScope", name, f"is meant to be of kind {kind}; the {other} was taken")
                kind = other
            body = self._documents.get((kind, name))
            if body is None:
                item.note("templateName", name, f"is not among the files; give the {kind} too")
                continue
            self._used.add((kind, name))
            found += self._template(kind, name, body, given)
        for i, argument in enumerate(arguments):
            if names[i] in given.unused():
                argument.leave("name", names[i], "is filled in nowhere")
        return found

    def finish(self) -> None:
        """Note the templates that nothing names."""
        for kind, name in self._documents:
            if kind in TEMPLATES and (kind, name) not in self._used:
                self._notes.add(f"{kind}/{name}", name, "is named by no Rollout", f"{kind}/{name}:")

    def _template(self, kind: str, name: str, body: Json, given: Variables) -> list[Json]:
        _, spec = opened(kind, name, body, self._notes)
        declared = spec.parts("args")
        names = [part.text("name") for part in declared]
        own = _arguments(declared, names)
        own.values.update(given.values)
        for missing in sorted(set(names) - own.values.keys()):
            spec.note("args", missing, "has no value")
        found = [
            self._named(condition)
            for metric in spec.parts("metrics")
            for condition in _metric(metric.filled(own.fill))
        ]
        given.used |= own.used
        for argument, mine in zip(declared, names, strict=True):
            if mine in own.unused() - given.values.keys():
                argument.leave("name", mine, "is filled in nowhere")
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


def _metric(part: Part) -> list[Json]:
    name = part.text("name")
    for key in (
        "count",
        "failureLimit",
        "inconclusiveLimit",
        "consecutiveErrorLimit",
        "consecutiveSuccessLimit",
    ):
        part.drop(key, COUNTING)
    every = dwell(part, "interval", "1m")
    grace = dwell(part, "initialDelay", "0s")
    provider = part.part("provider")
    prometheus = provider.part("prometheus")
    query = " ".join(prometheus.text("query").split())
    prometheus.drop("address", "is set once for all: `turnout serve --prometheus ADDRESS`")
    prometheus.drop("timeout", "is the interval: an answer that takes longer is missing data")
    if not query:
        part.leave(
            "provider", name, "is not a source of Turnout; sources are Envoy, Prometheus, pushed values"
        )
        return []
    limits = _limits(part, "successCondition", "&&") + [
        (OPPOSITE[bound], value) for bound, value in _limits(part, "failureCondition", "||")
    ]
    if not limits:
        part.leave("successCondition", name, "has no limit that we can express, so it cannot decide")
        return []
    found: list[Json] = []
    for bound, value in dict.fromkeys(limits):
        body = {"name": name_of(name, "" if len(limits) == 1 else bound), "query": query, bound: value}
        condition: dict[str, object] = {"prometheus": body | {"every": every}}
        found.append(condition | ({"grace": grace} if grace != "0s" else {}))
    return found


def _limits(part: Part, key: str, joint: str) -> list[tuple[str, float | int]]:
    """Return the limits in ``result >= 0.95 && result <= 2``, as bounds of ours.

    All of ours must hold: a success has them joined by ``&&``, a failure by ``||``.
    """
    text = part.text(key)
    found: list[tuple[str, float | int]] = []
    for piece in text.split(joint) if text else ():
        match = _LIMIT.fullmatch(piece)
        if match is None:
            part.note(
                key, text, "is an expression; only comparisons of `result` with a number have an equivalent"
            )
            return []
        value = float(match[2])
        found.append((BOUNDS[match[1]], int(value) if value == int(value) else value))
    return found


def _arguments(parts: list[Part], names: list[str]) -> Variables:
    found = Variables(_PLACE)
    for name, part in zip(names, parts, strict=True):
        value = part.text("value")
        origin = part.part("valueFrom")
        if version := VERSIONS.get(origin.text("podTemplateHashValue")):
            if value:
                part.note("valueFrom", name, "takes the place of a value that is given as well")
            value = version
        if value:
            found.values[name] = value
    return found


def _mirrored(match: Part) -> Json | None:
    """Return a match of a mirror; None, with a note, if a part of it has no equivalent: it would be wider."""
    method, path, headers = (match.part(key) for key in ("method", "path", "headers"))
    trees: list[Json] = [{"method": exact}] if (exact := method.text("exact")) else []
    trees += _tests(path, {"path": {}})
    inner = [method, path, headers]
    for header in headers.fields():
        inner.append(headers.part(header))
        trees += _tests(inner[-1], {"header": {"name": header.lower()}})
    return all_of(trees) if match.kept_whole(*inner) and trees else None


def _tests(value: Part, atom: Json) -> list[Json]:
    """Return the atom with each test of a foreign string match."""
    kind, base = next(iter(atom.items()))
    assert isinstance(base, Mapping)
    found: list[Json] = [
        {kind: {**base, ours: text}}
        for theirs, ours in STRING_MATCHES.items()
        if (text := value.text(theirs))
    ]
    return found


def _append(step: dict[str, object], conditions: list[Json]) -> None:
    if conditions:
        before = step.get("conditions", [])
        assert isinstance(before, list)
        step["conditions"] = [*before, *(each for each in conditions if each not in before)]
