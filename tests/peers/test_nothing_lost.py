"""Every field of the peers' documents ends up in a document of ours or in a note.

A value is changed, and something that comes out must change with it, unless a note says of the value, or of
what it is part of, that it was left out.
"""

import copy
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.peers import convert
from tests.peers.conftest import EXAMPLES

WHO = ("apiVersion", "kind")  # what a document is
JOINS = re.compile(r"setMirrorRoute\.name$|: metrics\[\d+\]\.name$")  # names that only join two fields
NAMES = sorted(path.name for path in EXAMPLES.iterdir())


def outcome(bodies):
    found = convert({(body.get("kind", "policy"), title(body)): body for body in bodies}, "edge")
    return found.documents, found.notes


def title(body):
    named = body.get("metadata", body)
    return str(named.get("name") or named.get("id"))


def leaves(value, path=()):
    """Yield the path of every scalar, and of every empty list or mapping."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def changed(bodies, path):
    """Yield the documents with other values at a path, of the same kind if that can be."""
    bodies = copy.deepcopy(bodies)
    holder = bodies
    for key in path[:-1]:
        holder = holder[key]
    for value in others(holder[path[-1]]):
        holder[path[-1]] = value
        yield bodies


def others(value):
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value - 1, 7, 77]
    if isinstance(value, str):
        more = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), value, count=1)
        return [more] if more != value else [value + "x"]
    return [{"zzz": 1}] if isinstance(value, dict) else [["zzz"]]


def written(bodies, path):
    """Return a path as notes write it."""
    body, *rest = path
    document = bodies[body]
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in rest)
    return f"{document.get('kind', 'policy')}/{title(document)}: {text.removeprefix('.')}"


def lost(bodies, paths=None):
    """Return the paths whose value nothing that comes out depends on, and of which no note says so."""
    before = outcome(bodies)
    told = [note.lost for note in before[1] if note.lost]
    found = []
    for path in leaves(bodies) if paths is None else paths:
        where = written(bodies, path)
        if path[-1] in WHO or JOINS.search(where) or any(covers(each, where) for each in told):
            continue
        if all(outcome(each) == before for each in changed(bodies, path)):
            found.append(where)
    return found


def covers(told, where):
    """Return whether a note about all of one place speaks for another."""
    return where == told or where.startswith((f"{told}.", f"{told}[") if told[-1] != ":" else told)


@pytest.mark.parametrize("example", NAMES)
def test_every_field_of_an_example_comes_out(example):
    bodies = list(yaml.safe_load_all((EXAMPLES / example).read_text()))

    assert lost(bodies) == []


@pytest.mark.parametrize("example", NAMES)
def test_a_field_that_nobody_knows_is_noted(example):
    """In every mapping of the example, one at a time."""
    bodies = list(yaml.safe_load_all((EXAMPLES / example).read_text()))
    paths = {path[:end] for path in leaves(bodies) for end in range(1, len(path))}
    silent = []
    for path in sorted(paths, key=str):
        more = copy.deepcopy(bodies)
        holder = more
        for key in path:
            holder = holder[key]
        if isinstance(holder, dict):
            holder["zzz"] = "unheard"
            silent += lost(more, [(*path, "zzz")])

    assert silent == []


DURATIONS = st.sampled_from(["5m", "90s", "1h", "20"])
TESTS = st.dictionaries(
    st.sampled_from(["exact", "prefix", "regex"]), st.just("value"), min_size=1, max_size=1
)
WEIGHTS = st.integers(1, 99)


def fields(required=None, **optional):
    return st.fixed_dictionaries(required or {}, optional=optional)


ROUTE_NAMES = st.sampled_from(["one", "two"])
ORDERS = st.one_of(
    fields({"setWeight": WEIGHTS}),
    fields({"pause": fields(duration=DURATIONS)}),
    fields({"setHeaderRoute": fields({"name": ROUTE_NAMES}, match=st.lists(
        fields({"headerName": st.just("X-A"), "headerValue": TESTS}), max_size=2))}),
    fields({"setMirrorRoute": fields({"name": ROUTE_NAMES}, percentage=WEIGHTS, match=st.lists(
        fields({"method": TESTS}, path=TESTS, headers=st.dictionaries(st.just("x-b"), TESTS)), max_size=2))}),
    fields({"analysis": fields({"templates": st.just([{"templateName": "absent"}])},
                               args=st.just([{"name": "a", "value": "b"}]))}),
    fields({"setCanaryScale": fields(replicas=WEIGHTS)}),
    fields({"experiment": fields(duration=DURATIONS)}),
)  # fmt: skip
WEBHOOKS = fields(
    {"name": st.just("hook"), "url": st.just("http://h.test/1")},
    type=st.sampled_from(["confirm-rollout", "rollout", "rollback", "event", "confirm-promotion", "other"]),
    timeout=DURATIONS, metadata=st.just({"cmd": "hey"}), retries=WEIGHTS, muteAlert=st.booleans(),
)  # fmt: skip
METRICS = fields(
    {"name": st.sampled_from(["request-success-rate", "request-duration", "own", "more"])},
    interval=DURATIONS, threshold=WEIGHTS, query=st.sampled_from(["up{v='{{ variables.v }}'}", "up"]),
    thresholdRange=fields(min=WEIGHTS, max=WEIGHTS), templateVariables=st.just({"v": "1"}),
    templateRef=st.just({"name": "absent", "namespace": "n"}),
)  # fmt: skip
MATCHES = fields(
    headers=st.dictionaries(st.sampled_from(["x-a", "cookie"]), TESTS, max_size=2),
    withoutHeaders=st.dictionaries(st.just("x-c"), TESTS), queryParams=st.dictionaries(st.just("q"), TESTS),
    method=TESTS, uri=TESTS, sourceLabels=st.just({"app": "a"}),
)  # fmt: skip
ANALYSES = fields(
    interval=DURATIONS, threshold=WEIGHTS, maxWeight=WEIGHTS, stepWeight=WEIGHTS, iterations=WEIGHTS,
    stepWeights=st.lists(WEIGHTS, max_size=3), mirror=st.booleans(), mirrorWeight=WEIGHTS,
    match=st.lists(MATCHES, max_size=2), metrics=st.lists(METRICS, max_size=2),
    webhooks=st.lists(WEBHOOKS, max_size=2),
)  # fmt: skip
SERVICES = fields(
    name=st.just("svc"), port=st.integers(1, 9999), portName=st.sampled_from(["http", "grpc", "tcp"]),
    hosts=st.just(["a.test"]), match=st.lists(fields(uri=TESTS), max_size=2), timeout=DURATIONS,
    rewrite=fields(uri=st.just("/new"), authority=st.just("b.test")),
    retries=fields(attempts=WEIGHTS, perTryTimeout=DURATIONS, retryOn=st.just("5xx, reset")),
)  # fmt: skip
TERMS = st.sampled_from(["has cookie a1", "header b has v1", "< raw 1 >"])
PHASES = fields(
    {"target": fields({"weight": WEIGHTS}, condition=TERMS, conditionStrength=WEIGHTS)},
    name=st.just("Step 1"), source=fields(weight=WEIGHTS), segmentation=st.just([{"name": "some"}]),
    endAfter=fields(maxDuration=DURATIONS, value=st.sampled_from(["duration == baselines.d", "p > 1"])),
    conditions=st.lists(fields(
        value=st.sampled_from(["successRate >= baselines.d", "requests >= 10", "requests >= 0", "x or y"]),
        metric=st.sampled_from(["successRate", "Health"]), operator=st.sampled_from(["ge", "le"]),
        threshold=WEIGHTS, gracePeriod=DURATIONS, budget=WEIGHTS,
    ), max_size=2),
)  # fmt: skip


def kubernetes(kind, spec):
    return {"kind": kind, "metadata": {"name": "web"}, "spec": spec}


DRAWN = {
    "argo": st.lists(ORDERS, max_size=7).map(
        lambda orders: kubernetes("Rollout", {"strategy": {"canary": {"steps": orders}}})
    ),
    "flagger": fields({"service": SERVICES, "analysis": ANALYSES}).map(
        lambda spec: kubernetes("Canary", spec)
    ),
    "vamp": st.lists(PHASES, max_size=3).map(
        lambda steps: {"type": "release", "name": "minor", "steps": steps,
                       "baselines": [{"name": "d", "value": "5"}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("system", sorted(DRAWN))
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_every_field_of_what_a_system_can_say_comes_out(system, data):
    assert lost([data.draw(DRAWN[system])]) == []
