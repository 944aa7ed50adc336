"""Flagger's Canary, with its MetricTemplates and AlertProviders, as a Service and a Policy of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from controlplane.peers.reading import Json, Notes, Part
from controlplane.peers.writing import Ladder, any_of, duration, latency, name_of, percent, policy, times

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
STRING_MATCHES = {"exact": "equals", "prefix": "prefix", "suffix": "suffix", "regex": "regex"}
ALERTS = {
    "info": ["advanced", "held", "rolled_back", "promoted"],
    "warn": ["held", "rolled_back"],
    "error": ["rolled_back"],
}


def read(documents: Mapping[tuple[str, str], Json], notes: Notes, fleet: str) -> list[Json]:
    """Return our documents for all Canaries among Flagger's documents, by (kind, name)."""
    found: list[Json] = []
    for (kind, name), body in documents.items():
        if kind == "Canary":
            found += _Canary(name, body, documents, notes, fleet).documents()
    return found


class _Canary:
    def __init__(
        self, name: str, body: Json, others: Mapping[tuple[str, str], Json], notes: Notes, fleet: str
    ) -> None:
        self._notes, self._others, self._fleet = notes, others, fleet
        self._name = name_of(name)
        whole = Part(f"Canary/{name}:", body, notes)
        metadata = whole.part("metadata")
        self._namespace = metadata.text("namespace") or "default"
        self._spec = whole.part("spec")
        target = self._spec.part("targetRef")
        self._target = target.text("name") or name

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
        spec.finish()
        return [service, policy]

    def _service(self, part: Part) -> Json:
        name = part.text("name") or self._target
        port = part.text("port") or "80"
        matches = part.parts("match")
        paths = [uri for match in matches if (uri := self._prefix(match))] or ["/"]
        hosts = [str(host) for host in _list(part.take("hosts"))] or [f"{name}.{self._namespace}"]
        places = [(host, path) for host in hosts for path in paths]
        routes: list[dict[str, object]] = [{"host": host} for host, _ in places]
        for route, (_, path) in zip(routes, places, strict=True):
            if path != "/":
                route["path"] = path
        rewrite = part.part("rewrite")
        if uri := rewrite.text("uri"):
            for route in routes:
                if uri != route.get("path", "/"):
                    route["rewrite"] = {"path": uri}
        rewrite.finish()
        document: dict[str, object] = {
            "kind": "Service",
            "name": self._name,
            "fleets": [self._fleet],
            "routes": routes,
            "initial": "primary",
            "versions": {
                version: {"dns": f"{name}-{version}.{self._namespace}:{port}"}
                for version in ("primary", "canary")
            },
        }
        if part.text("portName") == "grpc":
            document["protocol"] = "grpc"
        if (text := part.text("timeout")) and (timeout := duration(text)):
            document["timeout"] = timeout
        retries = part.part("retries")
        retries.drop("perTryTimeout", "has no equivalent; `timeout` holds for all attempts together")
        on = [each.strip() for each in retries.text("retryOn").split(",") if each.strip()]
        if attempts := retries.number("attempts"):
            document["retries"] = {"attempts": int(attempts)} | ({"on": on} if on else {})
        retries.finish()
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
            part.drop(key, "is about Kubernetes objects, which Turnout does not write")
        part.finish()
        self._notes.add(
            f"Canary/{self._name}: spec.service",
            name,
            "became versions 'primary' and 'canary'; Flagger copies one over the other, "
            "here each release names its own version",
        )
        return document

    def _prefix(self, match: Part) -> str:
        uri = match.part("uri")
        path = uri.text("prefix")
        uri.finish()
        match.finish()
        return path

    def _policy(self, part: Part) -> Json:
        interval = duration(part.text("interval") or "1m") or "1m"
        part.drop("threshold", COUNTING)
        ladder = self._ladder(part, interval)
        conditions = [found for metric in part.parts("metrics") for found in self._metric(metric, interval)]
        hooks = [hook for webhook in part.parts("webhooks") if (hook := self._hook(webhook))]
        notify = [found for alert in part.parts("alerts") if (found := self._alert(alert))]
        affinity = part.part("sessionAffinity")
        for key in ("cookieName", "primaryCookieName", "maxAge"):
            affinity.drop(key, "is not needed: users stay where they are by a hash of who they are")
        affinity.finish()
        part.drop("canaryReadyThreshold", WORKLOAD)
        part.drop("primaryReadyThreshold", WORKLOAD)
        part.drop("stepWeightPromotion", "shifts back after the copy; here nothing is copied")
        part.finish()
        return policy(
            self._name, ladder.steps, conditions,
            on_failure={"do": "rollback"}, hooks=hooks, notify=notify,
        )  # fmt: skip

    def _ladder(self, part: Part, interval: str) -> Ladder:
        ladder = Ladder()
        matches, iterations = part.parts("match"), part.number("iterations")
        if matches or iterations:
            dwell = times(interval, iterations or 1)
            part.drop("stepWeight", "is ignored by Flagger too, beside iterations")
            part.drop("maxWeight", "is ignored by Flagger too, beside iterations")
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
        listed = [float(str(weight)) for weight in _list(part.take("stepWeights"))]
        most = part.number("maxWeight") or (listed[-1] if listed else 100.0)
        step = part.number("stepWeight")
        if listed:
            return listed
        if not step:
            return []
        count = int(-(-most // step))
        return [min(100.0, step * i) for i in range(1, count + 1)]

    @staticmethod
    def _mirror(part: Part, ladder: Ladder) -> None:
        weight = part.number("mirrorWeight")
        if part.take("mirror") is True:
            ladder.steps[0]["mirror"] = {"share": percent(weight or 100)}
            part.note(
                "mirror",
                True,
                "is a step of its own in Flagger; here the first step mirrors the others' requests",
            )

    def _match(self, part: Part) -> Json | None:
        headers = part.part("headers")
        trees: list[Json] = []
        for name in headers.fields():
            test = headers.part(name)
            for theirs, ours in STRING_MATCHES.items():
                if value := test.text(theirs):
                    trees.append(_header(name.lower(), ours, value))
            test.finish()
        absent = part.part("withoutHeaders")
        for name in absent.fields():
            absent.take(name)
            trees.append({"not": {"header": {"name": name.lower(), "present": True}}})
        part.finish()
        return ({"all": trees} if len(trees) > 1 else trees[0]) if trees else None

    def _metric(self, part: Part, interval: str) -> list[Json]:
        name = part.text("name")
        every = duration(part.text("interval")) or interval
        limits = part.part("thresholdRange")
        low, high = limits.number("min"), limits.number("max")
        limits.finish()
        plain = part.number("threshold")
        if name == "request-success-rate":
            least = low if low is not None else plain
            part.drop("interval", "is the window of a query; evidence is counted per request")
            return [] if least is None else [{"success_rate": {"at_least": percent(least)}}]
        if name == "request-duration":
            most = high if high is not None else plain
            return [] if most is None else [latency(part, "thresholdRange.max", most)]
        query = self._query(part, every)
        if query is None:
            return []
        bounds = [("at_least", low), ("at_most", high if high is not None else plain)]
        found = [(bound, value) for bound, value in bounds if value is not None]
        if not found:
            part.note("thresholdRange", "nothing", "gives no limit, so the metric cannot decide")
        return [
            {"prometheus": {"name": name_of(name, "" if len(found) == 1 else bound), "query": query,
                            bound: _number(value), "every": every}}
            for bound, value in found
        ]  # fmt: skip

    def _query(self, part: Part, every: str) -> str | None:
        variables = {
            "name": self._name, "namespace": self._namespace, "target": self._target,
            "service": self._target, "interval": every,
        }  # fmt: skip
        given = part.part("templateVariables")
        for key in given.fields():
            variables[f"variables.{key}"] = given.text(key)
        reference = part.part("templateRef")
        query = part.text("query")
        if name := reference.text("name"):
            reference.take("namespace")
            body = self._others.get(("MetricTemplate", name))
            if body is None:
                part.note("templateRef", name, "is not among the files; give the MetricTemplate too")
                return None
            template = Part(f"MetricTemplate/{name}:", body, self._notes)
            spec = template.part("spec")
            provider = spec.part("provider")
            kind = provider.text("type")
            provider.drop("address", "is set once for all: `turnout serve --prometheus ADDRESS`")
            provider.drop("secretRef", "holds credentials; give them to `turnout serve`")
            if kind != "prometheus":
                part.note(
                    "templateRef",
                    kind,
                    "is not a source of Turnout; sources are Envoy, Prometheus, pushed values",
                )
                return None
            query = spec.text("query")
        return " ".join(_filled(query, variables).split()) if query else None

    def _hook(self, part: Part) -> Json | None:
        kind, url = part.text("type") or "rollout", part.text("url")
        part.drop("name", "is only a name")
        timeout = duration(part.text("timeout") or "10s")
        part.drop("metadata", "was sent along; our hooks send the release, its step and its reason")
        part.drop("retries", "is fixed: a hook is tried again until its timeout, with one idempotency key")
        part.drop("muteAlert", "has no equivalent")
        part.drop("disableTLS", "is not possible")
        part.finish()
        if kind == "event":
            part.note("type", kind, "became nothing; list the address under `notify`")
            return None
        if kind == "rollback":
            part.note("type", kind, "asks for a rollback from outside; call `turnout rollback` or the API")
            return None
        if kind not in HOOK_POINTS:
            part.note("type", kind, "is not a kind of webhook")
            return None
        return {"at": HOOK_POINTS[kind], "url": url, "timeout": timeout}

    def _alert(self, part: Part) -> Json | None:
        part.drop("name", "is only a name")
        severity = part.text("severity") or "info"
        provider = part.part("providerRef")
        name = provider.text("name")
        provider.take("namespace")
        body = self._others.get(("AlertProvider", name))
        if body is None:
            part.note("providerRef", name, "is not among the files; give the AlertProvider too")
            return None
        spec = Part(f"AlertProvider/{name}:", body, self._notes).part("spec")
        kind, address = spec.text("type"), spec.text("address")
        spec.drop("channel", "is chosen by the webhook's address")
        spec.drop("username", "is chosen by the webhook's address")
        spec.drop("secretRef", "holds the address; write it by hand")
        spec.finish()
        if not address:
            return None
        return {
            "slack" if kind == "slack" else "webhook": address,
            "on": ALERTS.get(severity, ALERTS["info"]),
        }


def _header(name: str, test: str, value: str) -> Json:
    if name != "cookie":
        return {"header": {"name": name, test: value}}
    # A cookie is read by name here; the usual patterns over the whole header name exactly one.
    found = re.search(r"([A-Za-z0-9_.-]+)=([A-Za-z0-9_-]+)", value)
    if found:
        return {"cookie": {"name": found[1], "equals": found[2]}}
    return {"cookie": {"name": re.sub(r"[^A-Za-z0-9_.-]", "", value), "equals": "always"}}


def _filled(query: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*([\w.]+)\s*\}\}", lambda found: variables.get(found[1], found[0]), query)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
