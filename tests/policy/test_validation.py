# ruff: noqa: E501, ISC004  (a table of whole messages)
"""One wrong document after the other, and the exact words that its author reads."""

import textwrap

import pytest

from controlplane.policy.documents import Condition, Policy, Service, Step
from controlplane.policy.explanation import fields
from controlplane.policy.grpc_codes import CODES
from controlplane.policy.stats import CLUSTER_STATS
from controlplane.policy.validation import MAX_PROBLEMS, validate
from controlplane.policy.yaml_source import read

EDGES = "5ms, 10ms, 25ms, 50ms, 75ms, 100ms, 150ms, 200ms, 250ms, 300ms, 400ms, 500ms, 750ms, 1s, 2s, 5s, 10s, 30s"
EACH = "; write an entry of the list for each"
NO_COMPARISON = "is one of a comparison, and a limit alone is none; add `against: baseline`, or leave it out"
KINDS_OF_CONDITION = ", ".join(Condition.one_of)
CONDITIONS = "equals, prefix, suffix, contains, regex, present, range"
NAMES = "a name: lower-case letters, digits, '-', '_' and '.', a letter or digit first and last"


STEP, POLICY = (", ".join(fields(model)) for model in (Step, Policy))


def problems(text):
    """Return the problems of one document, without the file's name."""
    (source,), _ = read("f", textwrap.dedent(text).encode())
    checked = validate(source)
    assert (checked.document is None) == any(p.level == "error" for p in checked.problems)
    return [str(problem).removeprefix("f:") for problem in checked.problems]


def policy(steps="[{name: all, everyone: 100%}]", rest="conditions: []\nguard: {hold_back: 2%}"):
    return problems(f"kind: Policy\nname: p\nsteps: {steps}\n{rest}\n")


def segment(match):
    return problems(f"kind: Segment\nname: s\nmatch: {match}\n")


def service(**lines):
    fields = {
        "kind": "Service",
        "name": "s",
        "fleets": "[edge]",
        "routes": "[{host: a.example.com}]",
        "initial": "v1",
        "versions": '{v1: {endpoints: ["10.0.0.1:80"]}}',
    } | lines
    return problems("".join(f"{key}: {value}\n" for key, value in fields.items() if value))


def fleet(nodes="{cluster: edge}", listeners='[{name: http, address: "0.0.0.0:80"}]'):
    return problems(f"kind: Fleet\nname: f\nnodes: {nodes}\nlisteners: {listeners}\n")


def release(rest):
    return problems(f"kind: Release\nname: r\nservice: s\nfrom: v1\nto: v2\npolicy: p\n{rest}\n")


def test_right_documents_have_no_problems():
    assert policy() == service() == fleet() == release("start: auto") == []
    assert (
        segment(
            "{not: {all: [{header: {name: x-a, range: {from: 1, to: 5}}}, {cookie: {name: B, regex: 'a.*'}}]}}"
        )
        == []
    )
    assert (
        service(
            versions="{v1: {dns: 'a.svc:80'}}",
            user="{from: [{header: x-u}, {cookie: uid}], otherwise: random}",
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- a", "1:1: a document is a mapping with a kind"),
        ("name: a", "1:1: kind: missing; known: Fleet, Policy, Release, Segment, Service"),
        (
            "kind: Polcy\nname: a",
            "1:7: kind: unknown kind 'Polcy'; known: Fleet, Policy, Release, Segment, Service; did you mean 'Policy'?",
        ),
        ("kind: [a]", "1:7: kind: unknown kind ['a']; known: Fleet, Policy, Release, Segment, Service"),
    ],
)
def test_kinds(text, found):
    assert problems(text) == [found]


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ("[]", ["3:8: steps: is empty; at least 1 is needed"]),
        ("5", ["3:8: steps: 5 stands where a list belongs"]),
        ("{a: 1}", ["3:8: steps: a mapping stands where a list belongs"]),
        (
            "[5]",
            [
                "3:9: steps[0]: 5 stands where a mapping belongs; known: name, segment, share, everyone, for, within,"
                " approve, mirror, conditions, on_failure, exclude, irreversible"
            ],
        ),
        ("[{everyone: 100%}]", ["3:9: steps[0].name: missing; it is required"]),
        ("[{name: 5, everyone: 100%}]", ["3:16: steps[0].name: 5 is not text; write it in quotes"]),
        ("[{name: A b, everyone: 100%}]", [f"3:16: steps[0].name: 'A b' is not {NAMES}"]),
        (
            f"[{{name: {'a' * 64}, everyone: 100%}}]",
            ["3:16: steps[0].name: has 64 characters; at most 63 are allowed"],
        ),
        (
            "[{name: everyone, everyone: 100%}]",
            ["3:16: steps[0].name: 'everyone' is reserved: it names a group of requests in statistics"],
        ),
        ("[{name: a, everyone: 120%}]", ["3:29: steps[0].everyone: 120% is not between 0% and 100%"]),
        (
            "[{name: a, everyone: 100}]",
            ["3:29: steps[0].everyone: 100 is not a share; write a percentage such as '5%' or '0.01%'"],
        ),
        (
            "[{name: z, everyone: 0%}, {name: a, everyone: 100%}]",
            ["3:29: steps[0].everyone: 0% gives nobody the new version; a step's share is 0.01% to 100%"],
        ),
        (
            "[{name: a, everyone: 100%, for: 5}]",
            ["3:40: steps[0].for: 5 is not a duration; write '30s', '5m', '2h' or '14d'"],
        ),
        (
            "[{name: a, everyone: 100%, forr: 5m, x: 1}]",
            [
                f"3:35: steps[0].forr: unknown field; known: {STEP}; did you mean 'for'?",
                f"3:45: steps[0].x: unknown field; known: {STEP}",
            ],
        ),
        (
            "[{name: a, everyone: 100%, for_: 5m}]",
            [f"3:35: steps[0].for_: unknown field; known: {STEP}; did you mean 'for'?"],
        ),
        (
            "[{name: a, everyone: 100%, segment: b}]",
            ["3:9: steps[0]: has segment and everyone; either segment and share, or everyone, is needed"],
        ),
        (
            "[{name: a, segment: b}, {name: b, everyone: 100%}]",
            ["3:9: steps[0]: has segment; either segment and share, or everyone, is needed"],
        ),
        (
            "[{name: a, everyone: }]",
            ["3:29: steps[0].everyone: has no value; write one or leave the key out"],
        ),
        ("[{name: a, everyone: 50%}]", ["3:9: steps[0]: is the last step; it must be `everyone: 100%`"]),
        (
            "[{name: a, everyone: 10%}, {name: a, everyone: 100%}]",
            ["3:42: steps[1].name: step 'a' stands twice; first in steps[0]"],
        ),
        (
            "[{name: a, everyone: 10%}, {name: b, everyone: 5%}, {name: c, everyone: 100%}]",
            [
                "3:55: steps[1].everyone: step 'b' lowers the share of everyone to 5%;"
                " step 'a' gave 10%, and shares only grow"
            ],
        ),
        (
            "[{name: a, segment: x, share: 50%}, {name: b, segment: y, share: 5%},"
            " {name: c, segment: x, share: 20%}, {name: d, everyone: 100%}]",
            [
                "3:107: steps[2].share: step 'c' lowers the share of this segment to 20%;"
                " step 'a' gave 50%, and shares only grow"
            ],
        ),
        (
            "[{name: a, segment: {cookie: {name: q, equals: z}}, share: 50%},"
            " {name: b, segment: {cookie: {name: q, equals: z}}, share: 5%}, {name: d, everyone: 100%}]",
            [
                "3:131: steps[1].share: step 'b' lowers the share of this segment to 5%;"
                " step 'a' gave 50%, and shares only grow"
            ],
        ),
        (
            "[{name: a, everyone: 10%}, {name: b, everyone: 10%}, {name: c, segment: x, share: 5%},"
            " {name: d, everyone: 100%}]",
            [
                "3:55: warning: steps[1].everyone: step 'b' changes nothing: step 'a' gave 10% already",
                "3:90: warning: steps[2].share: step 'c' changes nothing: step 'b' gave 10% already",
            ],
        ),
        (
            "[{name: a, segment: {cookie: {name: q, equals: z}}, share: 50%},"
            " {name: b, segment: a, share: 5%}, {name: d, everyone: 100%}]",
            ["3:16: steps[0].name: 'a' names this inline segment, and it is the segment of another step too"],
        ),
    ],
)
def test_steps(steps, found):
    assert policy(steps) == found


@pytest.mark.parametrize(
    ("conditions", "warned"), [("[]", True), ("[{success_rate: {at_least: 99%}}]", False)]
)
def test_an_irreversible_policy_is_not_asked_for_a_hold_back_that_it_may_not_have(conditions, warned):
    steps = "[{name: all, everyone: 100%, approve: {}, irreversible: {because: x}}]"

    assert bool(policy(steps, f"conditions: {conditions}")) is warned


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("guard: {hold_back: 2%}", ["1:1: conditions: missing; it is required"]),
        (
            "conditions: []",
            [
                "1:1: warning: guard.hold_back: hold-back is 0%: the last step and the guard are judged by absolute"
                " limits alone, and this policy has none"
            ],
        ),
        (
            "conditions: [{success_rate: {at_least: 99%}}]\nguard: {hold_back: 0%}",
            [
                "5:20: warning: guard.hold_back: hold-back is 0%: the last step and the guard are judged by absolute"
                " limits alone"
            ],
        ),
        (
            "conditions: []\nguard: {hold_back: 100%}",
            ["5:20: guard.hold_back: 100% leaves nobody for the new version; a hold-back is below 100%"],
        ),
        (
            "conditions: [{latency: {p99: 420ms}}]\nguard: {hold_back: 2%}",
            [
                "4:30: conditions[0].latency.p99: 420ms is not an edge of the latency buckets;"
                f" the edges are {EDGES}"
            ],
        ),
        (
            "conditions: [{latency: {p99: 1s, p50: 5ms}}]\nguard: {hold_back: 2%}",
            [
                f"4:24: conditions[0].latency: has p50 and p99; exactly one of p50, p90, p95, p99 is needed{EACH}"
            ],
        ),
        (
            "conditions: [{}, {errors: off, latency: {p50: 5ms}}]\nguard: {hold_back: 2%}",
            [
                f"4:14: conditions[0]: has none; exactly one of {KINDS_OF_CONDITION} is needed",
                f"4:18: conditions[1]: has errors and latency; exactly one of {KINDS_OF_CONDITION} is needed{EACH}",
            ],
        ),
        (
            "conditions: [{errors: off}, {errors: {}}, {latency: {p50: 5ms}}, {latency: {p99: 5ms}},"
            " {latency: {p50: 1s}}]\nguard: {hold_back: 2%}",
            [
                "4:29: conditions[1]: errors stands twice; first in conditions[0]",
                "4:89: conditions[4]: latency p50 stands twice; first in conditions[2]",
            ],
        ),
        (
            "conditions: [{metric: {name: o, margin: 5%}}, {metric: {name: o, at_least: 2%}}]\n"
            "guard: {hold_back: 2%}",
            [
                "4:47: conditions[1]: metric o stands twice; first in conditions[0]; one entry takes both:"
                " {name: NAME, against: baseline, margin: 10%, at_least: 2%}",
            ],
        ),
        (
            "conditions: [{latency: {margin: 5%, p99: 5ms}}, {client_errors: off, grace: 5s}]\n"
            "guard: {hold_back: 2%}",
            [
                "4:37: conditions[0].latency.p99: unknown field; known: against, margin;"
                " a limit is an entry of its own in the list",
                "4:77: conditions[1].grace: says when to begin judging what is off",
            ],
        ),
        (
            "conditions: [{error_rate: {at_most: 0%}}, {requests: {at_least: 0}}]\nguard: {hold_back: 2%}",
            [
                "4:37: conditions[0].error_rate.at_most: 0% cannot be shown by counting; write a share of at least 0.01%",
                "4:65: conditions[1].requests.at_least: 0 is too small; at least 1 is needed",
            ],
        ),
        (
            "conditions: [{stat: {name: upstream_rq_total, at_most: 0}}, {metric: {name: a, at_least: x}},"
            " {metric: {name: b, at_least: 2, at_most: 1}}, {prometheus: {name: q, query: up, every: 100ms}}]\n"
            "guard: {hold_back: 2%}",
            [
                "4:28: conditions[0].stat.name: 'upstream_rq_total' is no counter that proxies report; those of a"
                f" cluster are {', '.join(CLUSTER_STATS)}",
                "4:90: conditions[1].metric.at_least: 'x' is neither a number nor a percentage",
                "4:104: conditions[2].metric: at_least is more than at_most, which nothing keeps",
                "4:154: conditions[3].prometheus: at_least, at_most or `against: baseline` is needed",
            ],
        ),
        (
            'conditions: [{prometheus: {name: a, query: \'sum(e{v="$verison", s="${service}"})\', at_most: 1}}]\n'
            "guard: {hold_back: 2%}",
            [
                "4:44: conditions[0].prometheus.query: $verison is sent as it stands; filled in are $service,"
                " $version, $baseline, $segment; did you mean '$version'?;"
                " ${service} is sent as it stands; write $service, without braces",
            ],
        ),
        (
            "conditions: [{prometheus: {name: a, query: 'rate(e{v=\"$version\"}[$__interval])', at_most: 1}}]\n"
            "guard: {hold_back: 2%}",
            [
                "4:44: conditions[0].prometheus.query: $__interval is sent as it stands; filled in are $service,"
                " $version, $baseline, $segment",
            ],
        ),
        (
            'conditions: [{prometheus: {name: a, query: \'label_replace(e{v="$version", p=~"/a$|/b$"},'
            ' "x", "$1-${2}-$tail", "y", "(.)(.)(?P<tail>.)")\', at_most: 1}}]\nguard: {hold_back: 2%}',
            [],
        ),
        (
            "conditions: [{grpc_status: {codes: [NOT_FOUND, not_found]}}, {grpc_status: {codes: []}},"
            " {grpc_status: {codes: [ABORTED, ABORTED], at_most: 1%}}]\nguard: {hold_back: 2%}",
            [
                "4:48: conditions[0].grpc_status.codes[1]: 'not_found' is no code of a gRPC call that failed; those are"
                f" {', '.join(CODES)}",
                "4:84: conditions[1].grpc_status.codes: is empty; at least 1 is needed",
                "4:104: conditions[2].grpc_status: names ABORTED twice",
            ],
        ),
        (
            "conditions: [{errors: {at_most: 1%}}, {success_rate: 99%}, {latency: {p99: 0.4s}},"
            " {stat: {name: upstream_rq_timeouts, at_most: 0}}, {retries: {at_most: 0.001%}}]\n"
            "guard: {hold_back: 2%}",
            [
                "4:24: conditions[0].errors.at_most: unknown field; known: against, margin;"
                " a limit is `error_rate: {at_most: 1%}`",
                "4:54: conditions[1].success_rate: '99%' stands where a mapping belongs; known: at_least",
                f"4:76: conditions[2].latency.p99: '0.4s' is not an edge of the latency buckets; the edges are {EDGES}",
                "4:98: conditions[3].stat.name: 'upstream_rq_timeouts' is no counter that proxies report; those of a"
                f" cluster are {', '.join(CLUSTER_STATS)}; did you mean 'upstream_rq_timeout'?",
                "4:154: conditions[4].retries.at_most: '0.001%' is not a share, which come in steps of 0.01%; write a"
                " percentage such as '5%' or '0.01%'",
            ],
        ),
        (
            "conditions: [{success_rate: {at_least: 99%, margin: 5%}},"
            " {prometheus: {name: a, query: '', at_most: 1}},"
            " {prometheus: {name: b, query: up, at_most: 1, at_least: 0}},"
            " {prometheus: {name: c, query: up, at_most: 1, every: 2h}}]\nguard: {hold_back: 2%}",
            [
                "4:45: conditions[0].success_rate.margin: unknown field; known: at_least; with the baseline"
                " `errors: {against: baseline, margin: 25%}` compares",
                "4:89: conditions[1].prometheus.query: is empty; at least 1 is needed",
                "4:120: conditions[2].prometheus: has at_least and at_most; write another condition with a name of its"
                " own for one",
                "4:181: conditions[3].prometheus: every is 1s to 1h, not 2h",
            ],
        ),
        (
            "conditions: [{metric: {name: o, at_least: 2%, margin: 5%}}, {metric: {name: n, margin: 5%}},"
            " {grpc_status: {codes: [ABORTED], at_most: 1%, margin: 5%}},"
            " {prometheus: {name: a, query: up, at_most: 1, better: more}}]\n"
            "observe: [o, n, m, m]\nguard: {hold_back: 2%}",
            [
                f"4:47: conditions[0].metric.margin: {NO_COMPARISON}",
                f"4:140: conditions[2].grpc_status.margin: {NO_COMPARISON}",
                f"4:200: conditions[3].prometheus.better: {NO_COMPARISON}",
                "5:14: warning: observe[1]: has no effect: conditions[1] compares 'n', and what it finds decides",
                "5:20: observe[3]: metric 'm' stands twice; first in observe[2]",
            ],
        ),
        (
            "conditions: [{errors: of}]\nguard: {hold_back: 2%}",
            [
                "4:23: conditions[0].errors: 'of' is not allowed; allowed: off or a mapping; did you mean 'off'?"
            ],
        ),
        (
            "conditions: [{errors: {against: baseline, margin: 5}}]\nguard: {hold_back: 2%}",
            [
                "4:51: conditions[0].errors.margin: 5 is not a share; write a percentage such as '5%' or '0.01%'",
            ],
        ),
        (
            "conditions: [{xyz: {name: conversions}}]\nguard: {hold_back: 2%}",
            [f"4:15: conditions[0].xyz: unknown field; known: {KINDS_OF_CONDITION}, grace"],
        ),
        (
            "conditions: [{latency: {against: baseline, grace: 2m}}, {latency: {p99: 1s, grace: 2m}},"
            " {latency: {p50: 1s}, against: baseline}, {at_most: 5%, error_rate: {}}]\n"
            "guard: {hold_back: 2%, deadline: 1d}\nkeep_endpoints: 80%",
            [
                "4:44: conditions[0].latency.grace: unknown field; known: against, margin; "
                "'grace' stands beside 'latency', not inside of it",
                "4:77: conditions[1].latency.grace: unknown field; known: p50, p90, p95, p99; "
                "'grace' stands beside 'latency', not inside of it",
                f"4:111: conditions[2].against: unknown field; known: {KINDS_OF_CONDITION}, grace; "
                "'against' stands inside of 'latency'",
                f"4:132: conditions[3].at_most: unknown field; known: {KINDS_OF_CONDITION}, grace; "
                "'at_most' stands inside of 'error_rate'",
                "4:157: conditions[3].error_rate.at_most: missing; it is required",
                "5:24: guard.deadline: unknown field; known: for, hold_back, keep_endpoints; "
                "'deadline' stands beside 'guard', not inside of it",
                f"6:1: keep_endpoints: unknown field; known: {POLICY}; 'keep_endpoints' stands inside of 'guard'",
            ],
        ),
        (
            "conditions: []\nguard: {hold_back: 2%}\nwhen_unsure: {do: advnce}\ndedline: 1d",
            [
                "6:19: when_unsure.do: 'advnce' is not allowed; allowed: hold, rollback, advance; did you mean 'advance'?",
                f"7:1: dedline: unknown field; known: {POLICY}; did you mean 'deadline'?",
            ],
        ),
    ],
)
def test_conditions_and_guard(rest, found):
    assert policy(rest=rest) == found


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("{}", "3:8: match: has none; exactly one of header, cookie, query, path, method, host, user_agent, source, claim, users, users_file, cohort, all, any, not is needed"),
        ("{all: []}", "3:14: match.all: is empty; at least 1 is needed"),
        (
            "{cookie: {name: b}}",
            f"3:17: match.cookie: has none; exactly one of {CONDITIONS} is needed",
        ),
        (
            "{not: {any: [{cookie: {name: b, equals: a, prefix: c}}]}}",
            f"3:30: match.not.any[0].cookie: has equals and prefix; exactly one of {CONDITIONS} is needed",
        ),
        (
            "{cookie: {name: b, equals: 1}}",
            "3:35: match.cookie.equals: 1 is not text; write it in quotes",
        ),
        (
            "{cookie: {name: b, equals: ''}}",
            "3:35: match.cookie.equals: is empty; 'present' asks whether there is a value at all",
        ),
        (
            "{cookie: {name: b, equals: \"a\\nb\"}}",
            "3:35: match.cookie.equals: 'a\\nb' has control characters, which never appear in a request",
        ),
        (
            f"{{cookie: {{name: b, prefix: {'a' * 257}}}}}",
            "3:35: match.cookie.prefix: has 257 characters; at most 256 are allowed",
        ),
        (
            "{cookie: {name: b, present: 'yes'}}",
            "3:36: match.cookie.present: 'yes' stands where true or false belongs",
        ),
        (
            "{cookie: {name: 'a b', equals: c}}",
            "3:24: match.cookie.name: 'a b' is not a cookie name: letters, digits, '-', '_' and '.'",
        ),
        (
            "{header: {name: X-A, equals: c}}",
            "3:24: match.header.name: 'X-A' is not a header name: lower-case letters, digits and '-'",
        ),
        (
            "{header: {name: cookie, contains: c}}",
            "3:24: match.header.name: the cookie header is read by 'cookie', name by name",
        ),
        (
            "{header: {name: host, equals: c}}",
            "3:24: match.header.name: Envoy keeps no 'host' header; the condition 'host' looks at it",
        ),
        (
            "{header: {name: x-turnout-scope, equals: c}}",
            "3:24: match.header.name: 'x-turnout-' headers are set by Turnout itself",
        ),
        (
            "{header: {name: x-a, regex: '(?!a)b'}}",
            "3:36: match.header.regex: has a lookahead or lookbehind, which RE2, the engine of Envoy, cannot run",
        ),
        (
            "{header: {name: x-a, range: {from: 5, to: 5}}}",
            "3:36: match.header.range: from 5 to 5 is empty; 'from' must be less than 'to'",
        ),
        (
            "{header: {name: x-a, range: {from: a, to: 5}}}",
            "3:43: match.header.range.from: 'a' stands where a whole number belongs",
        ),
        (
            "{cohort: {from: 10%, to: 5%}}",
            "3:17: match.cohort: from 10% to 5% is empty; 'from' must be less than 'to'",
        ),
        (
            "{path: /a}",
            "3:15: match.path: '/a' stands where a mapping belongs; known: equals, prefix, suffix, contains, regex",
        ),
        (
            "{pathes: /a}",
            "3:9: match.pathes: unknown field; known: header, cookie, query, path, method, host, user_agent, "
            "source, claim, users, users_file, cohort, all, any, not; did you mean 'path'?",
        ),
        (
            "{path: {prefix: '/a?b'}}",
            "3:24: match.path.prefix: '/a?b' has '?'; values are compared as they are sent: write it percent-encoded",
        ),
        (
            "{query: {name: q, equals: 'a b'}}",
            "3:34: match.query.equals: 'a b' has ' '; values are compared as they are sent: write it percent-encoded",
        ),
        (
            "{query: {name: 'a[]', present: true}}",
            "3:23: match.query.name: 'a[]' is not the name of a query parameter: letters, digits, '-', '_', '.' and '~'",
        ),
        ("{method: get}", "3:17: match.method: 'get' is not a method: capitals, such as GET"),
        ("{host: '*'}", "3:15: match.host: '*' is every host; leave the condition out"),
        (
            "{user_agent: Opera}",
            "3:21: match.user_agent: 'Opera' is not allowed; allowed: Chrome, Edge, Firefox, Safari",
        ),
        ("{source: 10.0.0.1/8}", "3:17: match.source: '10.0.0.1/8' has bits beyond its prefix; write '10.0.0.0/8'"),
        (
            "{source: example.com}",
            "3:17: match.source: 'example.com' is not a network; write '10.0.0.0/8', '2001:db8::/32' or '10.1.2.3'",
        ),
        (
            "{source: '::ffff:0:0/96'}",
            "3:17: match.source: '::ffff:0:0/96' has IPv4 addresses in it; write those as '10.0.0.0/8'",
        ),
    ],
)  # fmt: skip
def test_segments(match, found):
    assert found in segment(match)


def test_a_tree_that_becomes_too_many_routes_is_refused():
    choice = "{any: [{header: {name: x-a, equals: a}}, {header: {name: x-a, equals: b}}]}"

    assert segment(f"{{all: [{', '.join([choice] * 6)}]}}") == []
    assert segment(f"{{all: [{', '.join([choice] * 7)}]}}") == [
        "3:8: match: expands to 128 alternatives, each a route; at most 64 are allowed"
    ]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ({"initial": "v9"}, "5:10: initial: 'v9' is not one of the versions: v1"),
        ({"initial": None}, "1:1: initial: missing; it is required"),
        ({"fleets": "[edge, edge]"}, "3:16: fleets[1]: fleet 'edge' stands twice; first in fleets[0]"),
        ({"fleets": "edge"}, "3:9: fleets: 'edge' stands where a list belongs"),
        (
            {"routes": "[{host: A.com, path: /}, {host: a.com}]"},
            "4:34: routes[1]: claim 'a.com/' stands twice; first in routes[0]",
        ),
        (
            {"routes": "[{host: 'a.com:80'}]"},
            "4:17: routes[0].host: 'a.com:80' is not a host; write 'shop.example.com', '*.example.com' or '*'",
        ),
        (
            {"routes": "[{host: a.com, path: 'x?y'}]"},
            "4:30: routes[0].path: 'x?y' is not a path prefix: '/' first, without spaces, '?' and '#'",
        ),
        (
            {"versions": '{v1: {endpoints: ["a.svc:80"]}}'},
            "6:29: versions.v1.endpoints[0]: 'a.svc:80' is not an IP address with a port; write '10.0.0.1:8080' or"
            " '[::1]:8080'; a DNS name goes in 'dns'",
        ),
        (
            {"versions": '{v1: {endpoints: [{address: "10.0.0.1:80", weight: 0}]}}'},
            "6:62: versions.v1.endpoints[0].weight: 0 is too small; at least 1 is needed",
        ),
        (
            {"versions": '{v1: {endpoints: ["10.0.0.1:80", {address: "10.0.0.1:80"}]}}'},
            "6:44: versions.v1.endpoints[1]: '10.0.0.1:80' stands twice; a weight gives it more requests",
        ),
        (
            {"versions": '{v1: {endpoints: ["10.0.0.1:80"], dns: "a:80"}}'},
            "6:16: versions.v1: has endpoints and dns; exactly one of endpoints, dns is needed",
        ),
        (
            {"versions": "{v1: {endpoints: []}}"},
            "6:28: warning: versions.v1.endpoints: is empty: no release to this version starts before it has one",
        ),
        ({"versions": "{v1: {dns: 'a:80'}, V2: {dns: 'a:80'}}"}, f"6:31: versions.V2: 'V2' is not {NAMES}"),
        ({"versions": "{v1: {dns: 'a:80', x: 1}}"}, "6:30: versions.v1.x: unknown field; known: endpoints, dns"),
        (
            {"user": "{from: [{header: x-u, cookie: u}]}"},
            "7:15: user.from[0]: has header and cookie; exactly one of header, cookie, query, claim is needed",
        ),
        ({"colour": "red"}, f"7:1: colour: unknown field; known: {', '.join(fields(Service))}"),
    ],
)  # fmt: skip
def test_services(lines, found):
    assert service(**lines) == [found]


def test_steps_that_ask_for_users_who_are_held_back_warn():
    steps = "[{name: few, everyone: 5%}, {name: most, everyone: 97%}, {name: all, everyone: 100%}]"

    found = policy(steps, "conditions: []\nguard: {hold_back: 5%}")

    text = "only 95% get it, for 5% are held back until the promotion"
    assert found == [f"3:59: warning: steps[1].everyone: {text}"]
    assert policy(steps, "conditions: []\nguard: {hold_back: 3%}") == []


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (fleet("{}"), "3:8: nodes: is empty; id, cluster, locality or metadata is needed, `id: \"*\"` for every proxy"),
        (fleet(listeners="[]"), "4:12: listeners: is empty; at least 1 is needed"),
        (
            fleet(listeners="[{name: a, address: 'localhost:80'}]"),
            "4:32: listeners[0].address: 'localhost:80' is not an IP address with a port; write '10.0.0.1:8080' or"
            " '[::1]:8080'; a DNS name goes in 'dns'",
        ),
        (
            fleet(listeners="[{name: a, address: '0.0.0.0:80'}, {name: a, address: '0.0.0.0:81'}]"),
            "4:54: listeners[1].name: name 'a' stands twice; first in listeners[0]",
        ),
        (
            fleet(listeners="[{name: a, address: '0.0.0.0:80'}, {name: b, address: '0.0.0.0:80'}]"),
            "4:66: listeners[1].address: address '0.0.0.0:80' stands twice; first in listeners[0]",
        ),
        (
            fleet(listeners="[{name: a, address: '0.0.0.0:80', kind: gateway}]"),
            "4:52: listeners[0].kind: 'gateway' is not allowed; allowed: edge, local, transparent, adopt, grpc",
        ),
        (
            fleet(listeners="[{name: a, address: '0.0.0.0:80', kind: grpc}]"),
            "4:13: listeners[0]: has an address, and kind grpc takes none: gRPC clients listen nowhere",
        ),
        (fleet(listeners="[{name: a}]"), "4:13: listeners[0]: has no address; kind edge needs one"),
        (
            fleet(listeners="[{name: a, kind: grpc}, {name: b, address: '0.0.0.0:80'}]"),
            "4:29: listeners[0].kind: is grpc, and there are other listeners; gRPC clients are a fleet of"
            " their own",
        ),
        (release(""), "1:1: start: missing; it is required"),
        (release("start: a"), "7:8: start: 'a' is not allowed; allowed: auto, manual"),
        (
            release("start: auto\nattempt: 2"),
            "7:1: start: is not the last key; it must be, so that a half-written file never starts",
        ),
        (release("attempt: 0\nstart: auto"), "7:10: attempt: 0 is too small; at least 1 is needed"),
        (release("attempt: yes\nstart: auto"), "7:10: attempt: 'yes' stands where a whole number belongs"),
        (
            problems("kind: Release\nname: r\nservice: s\nfrom: v1\nto: v1\npolicy: p\nstart: auto"),
            "5:5: to: 'v1' is what 'from' says too; a release changes the version",
        ),
    ],
)  # fmt: skip
def test_fleets_and_releases(document, found):
    assert document == [found]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    found = problems("""\
        kind: Policy
        name: 5
        steps:
          - {name: a, everyone: 120%}
          - {name: b, everyone: 10%}
          - {name: b, everyone: 5%, fro: 1m}
          - {name: c, everyone: 5%}
        conditions:
          - latency: {p99: 401ms}
          - success_rate: {at_least: 99%}
          - success_rate: {at_least: 98%}
        guard: {hold_back: 100%}
        on_failure:
        """)

    paths = [problem.split(": ")[1] for problem in found]
    assert paths == [
        "name", "steps[0].everyone", "steps[2].name", "steps[2].fro", "steps[3]", "steps[3].everyone",
        "conditions[0].latency.p99", "conditions[2]", "guard.hold_back", "on_failure",
    ]  # fmt: skip


def test_what_is_wrong_in_form_is_told_once():
    assert policy("[{name: a, everyone: *x}]") == [
        "3:29: steps[0].everyone: alias '*x' is not allowed; write it out"
    ]


@pytest.mark.timeout(20)
def test_thousands_of_mistakes_are_cut():
    (source,), _ = read("f", ("kind: Policy\n" + "".join(f"k{i}: {i}\n" for i in range(9000))).encode())

    found = validate(source).problems

    assert len(found) == MAX_PROBLEMS + 1
    assert str(found[-1]).startswith("f:1:1: and 89")


def test_a_step_adds_conditions_and_takes_none_away():
    steps = (
        "[{name: few, everyone: 5%, conditions: [{requests: {at_least: 500}}, {errors: off}, {requests: 5}]},"
        " {name: all, everyone: 100%}]"
    )

    assert policy(steps) == [
        "3:77: steps[0].conditions[1]: is off; a step adds conditions to the policy's and takes none away",
        "3:103: steps[0].conditions[2].requests: 5 stands where a mapping belongs; known: at_least",
    ]
