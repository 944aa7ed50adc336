"""Flagger's Canary, with its MetricTemplates and AlertProviders, as a Service and a Policy of ours."""

from __future__ import annotations

import re

from controlplane.peers.reading import Documents, Json, Notes, Part, opened
from controlplane.peers.writing import (
    Ladder,
    Variables,
    all_of,
    any_of,
    dwell,
    latency,
    name_of,
    percent,
    policy,
    times,
)

WORKLOAD = "is about workloads, which Turnout leaves alone"
COUNTING = "counts failed checks; here evidence decides: rollback at an e-value of 100, whatever the number"
HOOK_POINTS = {
    "confirm-rollout": "start",
    "pre-rollout": "start",
    "rollout": "judging",
    "confirm-traffic-increase": "before_step",
    "confirm-promotion": "before_promote",
    "post-rollout": "end",
}
KUBERNETES = "is about Kubernetes objects, which Turnout does not write"
BESIDE = "is ignored by Flagger too, beside {}"
WINDOW = "is the window of a query; evidence is counted per request"
UNDECIDED = "has no limit, so it cannot decide"
PROTOCOLS = {
    "http": None,
    "grpc": "grpc",
    "http2": "http2",
    "h2c": "http2",
}  # by the port's name; http is usual
STRING_MATCHES = {"exact": "equals", "prefix": "prefix", "suffix": "suffix", "regex": "regex"}
ALERTS = {
    "info": ["advanced", "held", "rolled_back", "promoted"],
    "warn": ["held", "rolled_back"],
    "error": ["rolled_back"],
}
SLACKS = {"slack": "", "rocket": "", "discord": "/slack"}  # who takes Slack's form, and where
_PLACE = re.compile(r"\{\{-?\s*([\w.]+)\s*-?\}\}")
# A cookie is read by name here. The usual patterns over the whole header name exactly one.
_COOKIE = re.compile(r"\^?\(\.\*\??;(?:\\s\*|\s\*| )?\)\?\(?([\w-]+)=([\w-]+)\)?\(;\.\*\)\?\$?", re.ASCII)


def read(documents: Documents, notes: Notes, fleet: str) -> list[Json]:
    """Return our documents for all Canaries among Flagger's documents."""
    found: list[Json] = []
    others = _Others(documents, notes)
    for (kind, name), body in documents.items():
        if kind == "Canary":
            found += _Canary(name, body, others, fleet).documents()
    others.finish()
    return found


class _Others:
    """What canaries name: MetricTemplates and AlertProviders."""

    def __init__(self, documents: Documents, notes: Notes) -> None:
        self._documents, self.notes = documents, notes
        self._used: set[tuple[str, str]] = set()

    def spec(self, kind: str, reference: Part) -> Part | None:
        """Return what is named; None, with a note, if it is not among the files."""
        name, wanted = reference.text("name"), reference.text("namespace")
        body = self._documents.get((kind, name))
        if body is None:
            reference.note("name", name, f"is not among the files; give the {kind} too")
            return None
        self._used.add((kind, name))
        metadata, spec = opened(kind, name, body, self.notes)
        given = metadata.text("namespace")
        if wanted and given != wanted:
            reference.note("namespace", wanted, f"is not where the {kind} is: that is in {given!r}")
        return spec

    def finish(self) -> None:
        """Note what nothing names."""
        for kind, name in self._documents:
            if kind != "Canary" and (kind, name) not in self._used:
                self.notes.add(f"{kind}/{name}", name, "is named by no Canary", f"{kind}/{name}:")


class _Canary:
    def __init__(self, name: str, body: Json, others: _Others, fleet: str) -> None:
        self._others, self._fleet = others, fleet
        self._name = name_of(name)
        metadata, self._spec = opened("Canary", name, body, others.notes)
        self._namespace = metadata.text("namespace") or "default"
        target = self._spec.part("targetRef")
        self._target = target.text("name") or name
        for key in ("apiVersion", "kind"):
            target.drop(key, WORKLOAD)
        self._service_name = self._target

    def documents(self) -> list[Json]:
        spec = self._spec
        service = self._service(spec.part("service"))
        for key in ("autoscalerRef", "ingressRef", "routeRef", "upstreamRef", "progressDeadlineSeconds",
                    "revertOnDeletion", "suspend", "metricsServer"):  # fmt: skip
            spec.drop(key, WORKLOAD)
        spec.drop("provider", "chose a mesh; here Envoys take their routes from Turnout directly")
        if spec.take("skipAnalysis") is True:
            spec.note(
                "skipAnalysis", True, "is an order to promote at once; use `turnout promote` for one release"
            )
        policy = self._policy(spec.part("analysis" if "analysis" in spec else "canaryAnalysis"))
        return [service, policy]

    def _service(self, part: Part) -> Json:
        name = self._service_name = part.text("name") or self._target
        port = part.text("port") or "80"
        document: dict[str, object] = {
            "kind": "Service",
            "name": self._name,
            "fleets": [self._fleet],
            "routes": self._routes(part),
            "initial": "primary",
            "versions": {
                version: {"dns": f"{name}-{version}.{self._namespace}:{port}"}
                for version in ("primary", "canary")
            },
        }
        if named := part.text("portName"):
            if named not in PROTOCOLS:
                part.note("portName", named, "says nothing of the protocol; http was taken")
            elif protocol := PROTOCOLS[named]:
                document["protocol"] = protocol
        if timeout := dwell(part, "timeout"):
            document["timeout"] = timeout
        if retries := self._retries(part.part("retries")):
            document["retries"] = retries
        for key in (
            "targetPort",
            "appProtocol",
            "portDiscovery",
            "apex",
            "primary",
            "canary",
            "gateways",
            "gatewayRefs",
        ):
            part.drop(key, KUBERNETES)
        self._spec.note(
            "service",
            name,
            "became versions 'primary' and 'canary'; Flagger copies one over the other, "
            "here each release names its own version",
        )
        return document

    def _routes(self, part: Part) -> list[dict[str, object]]:
        matches = part.parts("match")
        paths = [path for match in matches if (path := match.part("uri").text("prefix"))]
        if matches and not paths:
            part.note("match", "no prefix", "of a path; the service got all paths of its hosts")
        hosts = part.words("hosts") or [f"{self._service_name}.{self._namespace}"]
        rewrite = part.part("rewrite").text("uri")
        routes: list[dict[str, object]] = []
        for host in hosts:
            for path in paths or ["/"]:
                route: dict[str, object] = {"host": host}
                if path != "/":
                    route["path"] = path
                if rewrite and rewrite != path:
                    route["rewrite"] = {"path": rewrite}
                routes.append(route)
        return routes

    @staticmethod
    def _retries(part: Part) -> Json:
        part.drop("perTryTimeout", "has no equivalent; `timeout` holds for all attempts together")
        attempts = part.number("attempts")
        if not attempts:
            part.drop("retryOn", "says nothing without attempts")
            return {}
        on = [each.strip() for each in part.text("retryOn").split(",") if each.strip()]
        return {"attempts": int(attempts)} | ({"on": on} if on else {})

    def _policy(self, part: Part) -> Json:
        interval = dwell(part, "interval", "1m")
        part.drop("threshold", COUNTING)
        ladder = self._ladder(part, interval)
        conditions = [found for metric in part.parts("metrics") for found in self._metric(metric, interval)]
        hooks = [hook for webhook in part.parts("webhooks") if (hook := self._hook(webhook))]
        notify = [found for alert in part.parts("alerts") if (found := self._alert(alert))]
        affinity = part.part("sessionAffinity")
        for key in ("cookieName", "primaryCookieName", "maxAge"):
            affinity.drop(key, "is not needed: users stay where they are by a hash of who they are")
        part.drop("canaryReadyThreshold", WORKLOAD)
        part.drop("primaryReadyThreshold", WORKLOAD)
        part.drop("stepWeightPromotion", "shifts back after the copy; here nothing is copied")
        return policy(
            self._name, ladder.steps, conditions,
            on_failure={"do": "rollback"}, hooks=hooks, notify=notify,
        )  # fmt: skip

    def _ladder(self, part: Part, interval: str) -> Ladder:
        ladder = Ladder()
        matches, iterations = part.parts("match"), part.number("iterations")
        if matches or iterations:
            dwell = times(interval, iterations or 1)
            if dwell is None:
                part.note("iterations", f"{iterations:g}", f"take over a year; {interval} was taken")
                dwell = interval
            for key in ("stepWeight", "stepWeights", "maxWeight"):
                part.drop(key, BESIDE.format("iterations"))
            trees = [tree for match in matches if (tree := self._match(match))]
            if trees:
                ladder.segment("segment", any_of(trees))["for"] = dwell
            all_ = ladder.percentage(part, "iterations", 100, "all")
            assert all_ is not None
            all_["for"] = interval if trees else dwell
            if not trees:
                why = "judged a synthetic load before the switch; here users are judged after it"
                part.note("iterations", int(iterations or 1), why)
        else:
            for weight in self._weights(part):
                if step := ladder.percentage(part, "stepWeight", weight):
                    step["for"] = interval
            if all_ := ladder.percentage(part, "maxWeight", 100, "all"):
                all_["for"] = interval
        self._mirror(part, ladder)
        return ladder

    @staticmethod
    def _weights(part: Part) -> list[float]:
        if listed := part.words("stepWeights"):
            part.drop("stepWeight", BESIDE.format("stepWeights"))
            part.drop("maxWeight", BESIDE.format("stepWeights"))
            weights = [float(weight) for weight in listed if weight.isdecimal()]
            if len(weights) < len(listed):
                part.note("stepWeights", listed, "has entries that are no whole percentages")
            return weights
        step = part.number("stepWeight") or 0.0
        if step < 1:
            part.drop("maxWeight", "says nothing without steps")
            part.note("stepWeight", f"{step:g}", "makes no steps, so everybody gets the canary at once")
            return []
        most = min(100.0, part.number("maxWeight") or 100.0)
        count = int(-(-most // step))
        return [min(100.0, step * i) for i in range(1, count + 1)]

    @staticmethod
    def _mirror(part: Part, ladder: Ladder) -> None:
        if part.take("mirror") is not True:
            part.drop("mirrorWeight", "says nothing without `mirror`")
        elif ladder.steps[0].get("everyone") == "100%":
            part.leave("mirror", True, "would copy requests while everybody has the canary already")
        else:
            weight = part.number("mirrorWeight")
            ladder.steps[0]["mirror"] = {"share": percent(weight or 100)}
            part.note(
                "mirror",
                True,
                "is a step of its own in Flagger; here the first step mirrors the others' requests",
            )

    def _match(self, part: Part) -> Json | None:
        """Return the tree of one match; None, with a note, if a part of it has no equivalent."""
        inner, trees = [], []
        for field, kind in (("headers", "header"), ("queryParams", "query")):
            named = part.part(field)
            inner.append(named)
            for name in named.fields():
                inner.append(named.part(name))
                trees += _tests(kind, name, inner[-1])
        absent = part.part("withoutHeaders")
        inner.append(absent)
        for name in absent.fields():
            inner.append(absent.part(name))
            trees.append({"not": all_of(_tests("header", name, inner[-1]))})
        method, uri = part.part("method"), part.part("uri")
        inner += [method, uri]
        if exact := method.text("exact"):
            trees.append({"method": exact})
        for theirs, ours in (("exact", "equals"), ("prefix", "prefix"), ("regex", "regex")):
            if value := uri.text(theirs):
                trees.append({"path": {ours: value}})
        if not part.kept_whole(*inner):
            return None
        if not trees:
            part.leave("headers", "{}", "says nothing about requests")
            return None
        return all_of(trees)

    def _metric(self, part: Part, interval: str) -> list[Json]:
        name = part.text("name")
        limits = part.part("thresholdRange")
        low, high = limits.number("min"), limits.number("max")
        if low is not None or high is not None:
            part.drop("threshold", BESIDE.format("thresholdRange"))
        plain = part.number("threshold")
        if name == "request-success-rate":
            return self._success_rate(part, low if low is not None else plain, high)
        if name == "request-duration":
            return self._latency(part, low, high if high is not None else plain)
        every = dwell(part, "interval", interval)
        bounds = [("at_least", low), ("at_most", high if high is not None else plain)]
        found = [(bound, value) for bound, value in bounds if value is not None]
        if not found:
            part.leave("name", name, UNDECIDED)
        query = self._query(part, every) if found else None
        if query is None:
            return []
        return [
            {"prometheus": {"name": name_of(name, "" if len(found) == 1 else bound), "query": query,
                            bound: _number(value), "every": every}}
            for bound, value in found
        ]  # fmt: skip

    @staticmethod
    def _success_rate(part: Part, least: float | None, most: float | None) -> list[Json]:
        part.drop("interval", WINDOW)
        if most is not None:
            part.note("thresholdRange.max", f"{most:g}", "is an upper limit of successes; it was left out")
        if least is None:
            part.leave("name", "request-success-rate", UNDECIDED)
            return []
        return [{"success_rate": {"at_least": percent(least)}}]

    @staticmethod
    def _latency(part: Part, least: float | None, most: float | None) -> list[Json]:
        part.drop("interval", WINDOW)
        if least is not None:
            part.note("thresholdRange.min", f"{least:g}", "is a lower limit of a duration; it was left out")
        if most is None:
            part.leave("name", "request-duration", UNDECIDED)
            return []
        return [latency(part, "thresholdRange.max", most)]

    def _query(self, part: Part, every: str) -> str | None:
        variables = Variables(_PLACE, {
            "name": self._name, "namespace": self._namespace, "target": self._target,
            "service": self._service_name, "interval": every,
        })  # fmt: skip
        given = part.part("templateVariables")
        own = {f"variables.{key}": given.text(key) for key in given.fields()}
        variables.values.update({key: value for key, value in own.items() if value})
        query = self._template(part) if "templateRef" in part else part.text("query")
        if not query:
            part.leave("query", str(part.text("name")), "is no query that we can ask")
            return None
        query = " ".join(variables.fill(query).split())
        for key in sorted(own.keys() & variables.unused()):
            given.lose(key.removeprefix("variables."), own[key], "is filled in nowhere")
        if "{{" in query:
            part.note("query", query, "has places that are filled in by nothing known; write it by hand")
        return query

    def _template(self, part: Part) -> str:
        part.drop("query", BESIDE.format("templateRef"))
        spec = self._others.spec("MetricTemplate", part.part("templateRef"))
        if spec is None:
            return ""
        provider = spec.part("provider")
        kind = provider.text("type")
        if kind != "prometheus":
            provider.leave(
                "type", kind, "is not a source of Turnout; sources are Envoy, Prometheus, pushed values"
            )
            spec.drop("query", "is in the language of another source")
            return ""
        provider.drop("address", "is set once for all: `turnout serve --prometheus ADDRESS`")
        provider.drop("secretRef", "holds credentials; give them to `turnout serve`")
        return spec.text("query")

    def _hook(self, part: Part) -> Json | None:
        kind, url = part.text("type") or "rollout", part.text("url")
        why = "is not a kind of webhook"
        if kind == "event":
            why = "became nothing; list the address under `notify`"
        elif kind == "rollback":
            why = "asks for a rollback from outside; call `turnout rollback` or the API"
        elif not url:
            why = "has no address"
        if kind not in HOOK_POINTS or not url:
            part.leave("type", kind, why)
            return None
        part.drop("name", "is only a name")
        part.drop("metadata", "was sent along; our hooks send the release, its step and its reason")
        part.drop("retries", "is fixed: a hook is tried again until its timeout, with one idempotency key")
        part.drop("muteAlert", "has no equivalent")
        part.drop("disableTLS", "is not possible")
        return {"at": HOOK_POINTS[kind], "url": url, "timeout": dwell(part, "timeout", "10s")}

    def _alert(self, part: Part) -> Json | None:
        spec = self._others.spec("AlertProvider", part.part("providerRef"))
        if spec is None:
            part.leave("providerRef", str(part.text("name")), "is unknown, so nobody is told")
            return None
        kind, address = spec.text("type"), spec.text("address")
        spec.drop("channel", "is chosen by the webhook's address")
        spec.drop("username", "is chosen by the webhook's address")
        spec.drop("secretRef", "holds the address; write it by hand")
        if not address:
            part.leave("providerRef", kind, "has no address here, so nobody is told")
            return None
        part.drop("name", "is only a name")
        severity = part.text("severity") or "info"
        if severity not in ALERTS:
            part.note("severity", severity, f"is none of {', '.join(ALERTS)}; info was taken")
        on = ALERTS.get(severity, ALERTS["info"])
        if kind in SLACKS:
            return {"slack": address.removesuffix(SLACKS[kind]) + SLACKS[kind], "on": on}
        spec.note("type", kind, "takes a form of its own; a webhook of ours sends CloudEvents")
        return {"webhook": address, "on": on}


def _tests(kind: str, name: str, value: Part) -> list[Json]:
    """Return all that is asked of a header or query parameter; that it is there if nothing is."""
    name = name.lower() if kind == "header" else name
    if not value.fields():
        return [{kind: {"name": name, "present": True}}]
    given = [(ours, text) for theirs, ours in STRING_MATCHES.items() if (text := value.text(theirs))]
    return [
        _cookie(text)
        if (kind, name, ours) == ("header", "cookie", "regex")
        else {kind: {"name": name, ours: text}}
        for ours, text in given
    ]


def _cookie(pattern: str) -> Json:
    found = _COOKIE.fullmatch(pattern)
    if found is None:
        return {"header": {"name": "cookie", "regex": pattern}}
    return {"cookie": {"name": found[1], "equals": found[2]}}


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
