"""What the parts of one document say about one another.

Each check takes the parts that could be read (None for one that could not), so that all mistakes of a
document are found at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from controlplane.policy import emergencies, endings, limits, queries, settings, times
from controlplane.policy.capabilities import KINDS, Feature, refusal
from controlplane.policy.documents import (
    Condition,
    Ends,
    Fleet,
    Guard,
    Match,
    Model,
    Policy,
    Release,
    Segment,
    Service,
    Step,
)
from controlplane.policy.problems import Finding, Path, written
from controlplane.policy.segments import alternatives
from controlplane.policy.values import PPM, format_share
from controlplane.policy.yaml_source import Value

MAX_ALTERNATIVES = 64  # routes that one segment may become

M = TypeVar("M", bound=Model)
Raw = dict[str, Value]


def check(model: type[Model], raw: Raw) -> list[Finding]:
    """Return what is wrong between the parts of a document."""
    return list(_CHECKS[model](raw))


def _read(model: type[M], value: Value) -> M | None:
    """Return the part, or None if it is wrong in itself, which is reported elsewhere."""
    try:
        return model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError:
        return None


def _items(value: Value) -> list[Value]:
    return value if isinstance(value, list) else []


def _twice(values: Iterable[tuple[Path, str | None]], what: str) -> Iterator[Finding]:
    """Report every value that stood before; ``what`` names it."""
    first: dict[str, Path] = {}
    for path, value in values:
        if value is not None and first.setdefault(value, path) != path:
            from_ = f"{first[value][0]}[{first[value][1]}]"
            yield Finding(path, f"{what} {value!r} stands twice; first in {from_}")


def _field(items: list[Value], key: str) -> Iterator[tuple[int, str | None]]:
    for index, item in enumerate(items):
        value = item.get(key) if isinstance(item, dict) else None
        yield index, value if isinstance(value, str) else None


# --- Fleet, Service, Segment, Release ---------------------------------------------------------------------


def _fleet(raw: Raw) -> Iterator[Finding]:
    if raw.get("nodes") == {}:
        yield Finding(
            ("nodes",), 'is empty; id, cluster, locality or metadata is needed, `id: "*"` for every proxy'
        )
    listeners = _items(raw.get("listeners"))
    for key in ("name", "address"):
        yield from _twice(((("listeners", i, key), v) for i, v in _field(listeners, key)), key)
    kinds = [kind or "edge" for _, kind in _field(listeners, "kind")]
    for index, kind in enumerate(kinds if len(kinds) > 1 else ()):
        alone = next((k for k in KINDS if k == kind and refusal(k, Feature.SHARED)), None)
        if alone and not (alone == "adopt" and set(kinds) == {"adopt"}):
            text = f"is {alone}, and there are other listeners; {refusal(alone, Feature.SHARED)}"
            yield Finding(("listeners", index, "kind"), text)
    if "tokens" in raw and (
        unable := next((k for k in KINDS if k in kinds and refusal(k, Feature.CLAIM)), None)
    ):
        yield Finding(("tokens",), f"kind {unable} takes none: {refusal(unable, Feature.CLAIM)}")


def _service(raw: Raw) -> Iterator[Finding]:
    yield from settings.findings(raw)
    fleets = [f if isinstance(f, str) else None for f in _items(raw.get("fleets"))]
    yield from _twice(
        ((("fleets", i), f if isinstance(f, str) else None) for i, f in enumerate(fleets)), "fleet"
    )
    claims = [
        (("routes", i), f"{route.get('host')}{route.get('path', '/')}".lower())
        for i, route in enumerate(_items(raw.get("routes")))
        if isinstance(route, dict)
    ]
    yield from _twice(claims, "claim")
    if isinstance(raw.get("hold_out"), dict) and (held := _read(Match, raw["hold_out"])):
        yield from _tree(("hold_out",), held)
    versions, initial = raw.get("versions"), raw.get("initial")
    yield from _per(raw.get("metrics"))
    if not isinstance(versions, dict):
        return
    if isinstance(initial, str) and initial not in versions:
        yield Finding(("initial",), f"{initial!r} is not one of the versions: {', '.join(versions)}")
    for name, version in versions.items():
        yield from _endpoints(("versions", name, "endpoints"), version)


def _per(metrics: Value) -> Iterator[Finding]:
    """Report metrics that are divided by one that is not there."""
    if not isinstance(metrics, dict):
        return
    for name, metric in metrics.items():
        per = metric.get("per") if isinstance(metric, dict) else None
        if isinstance(per, str) and (per not in metrics or per == name):
            others = ", ".join(other for other in metrics if other != name) or "there is none"
            yield Finding(("metrics", name, "per"), f"{per!r} is no other metric of the service; {others}")


def _endpoints(path: Path, version: Value) -> Iterator[Finding]:
    endpoints = version.get("endpoints") if isinstance(version, dict) else None
    if endpoints == []:
        yield Finding(path, "is empty: no release to this version starts before it has one", "warning")
    first: dict[str, int] = {}
    for index, item in enumerate(_items(endpoints)):
        address = item.get("address") if isinstance(item, dict) else item
        if isinstance(address, str) and first.setdefault(address, index) != index:
            yield Finding((*path, index), f"{address!r} stands twice; a weight gives it more requests")


def _tree(path: Path, match: Match) -> Iterator[Finding]:
    if (count := alternatives(match)) > MAX_ALTERNATIVES:
        text = f"expands to {count} alternatives, each a route; at most {MAX_ALTERNATIVES} are allowed"
        yield Finding(path, text)


def _segment(raw: Raw) -> Iterator[Finding]:
    if match := _read(Match, raw.get("match")):
        yield from _tree(("match",), match)


def _release(raw: Raw) -> Iterator[Finding]:
    if "start" in raw and next(reversed(raw)) != "start":
        text = "is not the last key; it must be, so that a half-written file never starts"
        yield Finding(("start",), text, at_key=True)
    if isinstance(raw.get("from"), str) and raw.get("from") == raw.get("to"):
        yield Finding(("to",), f"{raw['to']!r} is what 'from' says too; a release changes the version")


# --- Policy -----------------------------------------------------------------------------------------------


def _policy(raw: Raw) -> Iterator[Finding]:
    items = _items(raw.get("steps"))
    steps = [_read(Step, item) for item in items]
    yield from _twice(((("steps", i, "name"), name) for i, name in _field(items, "name")), "step")
    yield from _shares(steps)
    yield from _segments(steps)
    yield from _excluded(steps)
    ends = _read(Ends, raw["ends"]) if "ends" in raw else None
    if "ends" not in raw and steps and steps[-1] and steps[-1].everyone != PPM:
        yield Finding(("steps", len(steps) - 1), "is the last step; it must be `everyone: 100%`")
    conditions = _read_all(Condition, raw.get("conditions"))
    yield from _conditions((), conditions)
    for index, item in enumerate(items):
        own = _read_all(Condition, item.get("conditions")) if isinstance(item, dict) else []
        yield from _conditions(("steps", index), own)
        for at, condition in enumerate(own):
            if condition is not None and condition.off:
                text = "is off; a step adds conditions to the policy's and takes none away"
                yield Finding(("steps", index, "conditions", at), text)
    yield from _queries(items, conditions)
    everywhere = _everywhere(items, conditions)
    yield from _places(everywhere)
    yield from limits.check(everywhere)
    yield from _observed(raw.get("observe"), everywhere)
    yield from emergencies.check(raw, everywhere)
    yield from times.check(raw, steps, everywhere, _read(Guard, raw.get("guard", {})), ends)
    if ends is not None:
        yield from endings.check(raw, ends, steps, conditions)
    if ends is None or ends.do != "report":
        yield from _hold_back(raw, conditions, steps)
    yield from _no_return(raw, items, steps)


def _read_all(model: type[M], value: Value) -> list[M | None]:
    return [_read(model, item) for item in _items(value)]


def _shares(steps: Sequence[Step | None]) -> Iterator[Finding]:
    """Shares only grow, for everyone (None) and for each segment."""
    largest: dict[str | Match | None, tuple[int, str]] = {}
    for index, step in enumerate(steps):
        if step is None:
            continue
        share, key = (step.share or 0, "share") if step.everyone is None else (step.everyone, "everyone")
        before, name = largest.get(step.segment, (0, ""))
        covered, by = max((before, name), largest.get(None, (0, "")))
        if share < before:
            whom = "everyone" if step.segment is None else "this segment"
            text = f"step {step.name!r} lowers the share of {whom} to {format_share(share)}"
            text += f"; step {name!r} gave {format_share(before)}, and shares only grow"
            yield Finding(("steps", index, key), text)
            continue
        if share <= covered:
            text = f"step {step.name!r} changes nothing: step {by!r} gave {format_share(covered)} already"
            yield Finding(("steps", index, key), text, "warning")
        largest[step.segment] = share, step.name


def _segments(steps: Sequence[Step | None]) -> Iterator[Finding]:
    named = {step.segment for step in steps if step and isinstance(step.segment, str)}
    for index, step in enumerate(steps):
        if step and step.mirror and isinstance(step.mirror.segment, Match):
            yield from _tree(("steps", index, "mirror", "segment"), step.mirror.segment)
        if step and isinstance(step.segment, Match):
            yield from _tree(("steps", index, "segment"), step.segment)
            if step.name in named:
                text = f"{step.name!r} names this inline segment, and it is the segment of another step too"
                yield Finding(("steps", index, "name"), text)


def _excluded(steps: Sequence[Step | None]) -> Iterator[Finding]:
    """What is excluded only gets less: who has the new version keeps it."""
    for index, step in enumerate(steps):
        if step is None:
            continue
        path: Path = ("steps", index, "exclude")
        yield from _twice((((*path, i), name) for i, name in enumerate(step.exclude)), "segment")
        before = steps[index - 1] if index else step
        for place, name in enumerate(step.exclude):
            if name == step.segment:
                yield Finding((*path, place), f"{name!r} is the segment of this step; nobody would get it")
            elif before is not None and name not in before.exclude:
                text = f"step {step.name!r} excludes {name!r}, which step {before.name!r} does not; who has"
                yield Finding((*path, place), f"{text} the new version would lose it")
    if steps and steps[-1] and steps[-1].exclude:
        text = "what the last step excludes stays on the baseline until the promotion"
        yield Finding(("steps", len(steps) - 1, "exclude"), text, "warning")


BOTH = "{name: NAME, against: baseline, margin: 10%, at_least: 2%}"  # comparison and limit of a metric


def _conditions(path: Path, conditions: Sequence[Condition | None]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, condition in enumerate(conditions):
        if condition is None:
            continue
        at = (*path, "conditions", index)
        before = first.setdefault(condition.title, index)
        if before != index:
            one = f"; one entry takes both: {BOTH}" if condition.metric else ""
            yield Finding(at, f"{condition.title} stands twice; first in conditions[{before}]{one}")
        if condition.off and condition.grace:
            yield Finding((*at, "grace"), "says when to begin judging what is off")


def _queries(steps: list[Value], conditions: Sequence[Condition | None]) -> Iterator[Finding]:
    """Report queries of steps whose name the policy or another step has: readings are known by it."""
    known = {c.prometheus.name for c in conditions if c and c.prometheus}
    for index, item in enumerate(steps):
        own = _read_all(Condition, item.get("conditions")) if isinstance(item, dict) else []
        for at, condition in enumerate(own):
            if condition is not None and condition.prometheus is not None:
                name = condition.prometheus.name
                if name in known:
                    path = ("steps", index, "conditions", at, "prometheus", "name")
                    yield Finding(path, f"{name!r} is the name of another query; each has its own")
                known.add(name)


def _places(conditions: Sequence[tuple[Path, Condition]]) -> Iterator[Finding]:
    """Report what queries have of names that nothing is filled in for."""
    for path, condition in conditions:
        if condition.prometheus and (wrong := "; ".join(queries.unknown(condition.prometheus.query))):
            yield Finding((*path, "prometheus", "query"), wrong)


def _observed(names: Value, conditions: Sequence[tuple[Path, Condition]]) -> Iterator[Finding]:
    """Report metrics that are observed twice, or compared by a condition of the policy already."""
    known = [
        (("observe", i), name if isinstance(name, str) else None) for i, name in enumerate(_items(names))
    ]
    yield from _twice(known, "metric")
    whole = ((path, c.metric) for path, c in conditions if path[0] == "conditions" and c.metric)
    judged = {metric.name: written(path) for path, metric in whole if metric.compared}
    for path, name in known:
        if name in judged:
            text = f"has no effect: {judged[name]} compares {name!r}, and what it finds decides"
            yield Finding(path, text, "warning")


def _everywhere(steps: list[Value], conditions: Sequence[Condition | None]) -> list[tuple[Path, Condition]]:
    """Return all conditions that could be read, the policy's and those of steps, with their places."""
    found: list[tuple[Path, Condition | None]] = [(("conditions", i), c) for i, c in enumerate(conditions)]
    for index, item in enumerate(steps):
        own = _read_all(Condition, item.get("conditions")) if isinstance(item, dict) else []
        found += [(("steps", index, "conditions", at), c) for at, c in enumerate(own)]
    return [(path, condition) for path, condition in found if condition is not None]


def _hold_back(
    raw: Raw, conditions: Sequence[Condition | None], steps: Sequence[Step | None]
) -> Iterator[Finding]:
    guard = _read(Guard, raw.get("guard", {}))
    final = _irreversible(steps)
    point = final is not None or raw.get("point_of_no_return") is not None
    if guard is None:
        return
    if guard.hold_back:
        if point:
            what = "there is a point_of_no_return" if final is None else f"step {final!r} is irreversible"
            yield Finding(("guard", "hold_back"), f"{what}; it must be 0%, for nobody can stay behind")
        yield from _held_back(guard.hold_back, steps)
        return
    absolute = any(c and c.absolute for c in conditions)
    if absolute and point:
        return  # it cannot be otherwise, and limits are what there is
    unpaired = "the guard is" if "ends" in raw else "the last step and the guard are"
    text = f"hold-back is 0%: {unpaired} judged by absolute limits alone"
    if not absolute and None not in conditions:
        text += ", and this policy has none"
    if resting := [c.title for c in conditions if c and _compared(c)]:
        text += f"; {', '.join(resting)}: not compared with the baseline there"
    yield Finding(("guard", "hold_back"), text, "warning")


def _held_back(held: int, steps: Sequence[Step | None]) -> Iterator[Finding]:
    """Report steps that ask for users who are held back; 100% is all but them."""
    for index, step in enumerate(steps):
        if step is not None and step.everyone is not None and PPM - held < step.everyone < PPM:
            left = format_share(PPM - held)
            text = f"only {left} get it, for {format_share(held)} are held back until the promotion"
            yield Finding(("steps", index, "everyone"), text, "warning")


def _compared(condition: Condition) -> bool:
    """Return whether a condition of other values than requests is compared with the baseline."""
    metric, prometheus = condition.metric, condition.prometheus
    return bool((metric and metric.compared) or (prometheus and prometheus.against))


def _no_return(raw: Raw, items: list[Value], steps: Sequence[Step | None]) -> Iterator[Finding]:
    """A policy has at most one point of no return, and its name is not a step's."""
    if (final := _irreversible(steps)) is not None and raw.get("point_of_no_return") is not None:
        text = f"step {final!r} is irreversible, so the point lies there; a policy has one"
        yield Finding(("point_of_no_return",), text, at_key=True)
    for index, name in _field(items, "name"):
        if name == "point_of_no_return":
            text = f"{name!r} is the name by which the end of a policy is approved"
            yield Finding(("steps", index, "name"), text)


def _irreversible(steps: Sequence[Step | None]) -> str | None:
    return next((step.name for step in steps if step and step.irreversible), None)


_CHECKS: Mapping[type[Model], Callable[[Raw], Iterator[Finding]]] = {
    Fleet: _fleet,
    Policy: _policy,
    Release: _release,
    Segment: _segment,
    Service: _service,
}
