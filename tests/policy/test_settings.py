# ruff: noqa: E501, ISC004  (a table of whole messages)
"""What the settings of a service may say."""

from __future__ import annotations

import pytest

from controlplane.policy.loading import load

FLEET = (
    'kind: Fleet\nname: edge\nnodes: {cluster: edge}\nlisteners: [{name: http, address: "0.0.0.0:80"}]\n---\n'
)
FIELDS = {
    "kind": "Service",
    "name": "s",
    "fleets": "[edge]",
    "routes": "[{host: a.example.com}]",
    "initial": "v1",
    "versions": '{v1: {endpoints: ["10.0.0.1:80"]}}',
}


def problems(**lines):
    text = FLEET + "".join(f"{key}: {value}\n" for key, value in (FIELDS | lines).items())
    return [str(p).partition(": ")[2] for p in load({"f": text.encode()}).problems]


@pytest.mark.parametrize(
    "lines",
    [
        {"protocol": "http2", "timeout": "0s", "idle_timeout": "10m"},
        {"protocol": "grpc", "health": "{every: 2s}"},
        {"health": "{path: /healthz}", "outliers": "{}", "limits": "{requests: 50}"},
        {"balance": "ring_hash"},
        {"retries": "{}"},
        {"retries": "{attempts: 3, on: [5xx], other_version: true}", "version_header": "x-version"},
        {"retries": "{on: [unavailable]}", "protocol": "grpc"},
        {"upstream_tls": "{ca: /etc/turnout/ca.crt, name: checkout.internal}"},
        {"versions": '{v1: {endpoints: [{address: "10.0.0.1:80", zone: a}, {address: "10.0.0.2:80", zone: b}]}}'},
        {"routes": "[{host: a.example.com, path: /a, rewrite: {path: /, host: b.internal}, websockets: true}]"},
    ],
)  # fmt: skip
def test_settings_that_fit_together_are_taken(lines):
    assert problems(**lines) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ({"protocol": "http3"}, "protocol: 'http3' is not allowed; allowed: http, http2, grpc"),
        ({"balance": "maglev"}, "balance: 'maglev' is not allowed; allowed: least_request, round_robin, ring_hash, random"),
        (
            {"retries": "{on: [retriable-4xx]}"},
            "retries.on[0]: 'retriable-4xx' is not allowed; allowed: connect-failure, refused-stream, reset-before-request, "
            "reset, gateway-error, 5xx, unavailable, internal, deadline-exceeded",
        ),
        (
            {"retries": "{on: [5xx]}", "protocol": "grpc"},
            "retries.on[0]: '5xx' is of HTTP, and the service speaks grpc; allowed then: connect-failure, "
            "refused-stream, reset-before-request, unavailable, internal, deadline-exceeded",
        ),
        ({"retries": "{on: [internal]}"}, "retries.on[0]: 'internal' is a status of gRPC, and the service speaks http;"),
        ({"retries": "{attempts: 4}"}, "retries.attempts: 4 is too large; at most 3 is allowed"),
        ({"version_header": "x-turnout-scope"}, "version_header: 'x-turnout-scope' is Turnout's own; of 'x-turnout-' headers only 'x-turnout-version' is free"),
        ({"version_header": "host"}, "version_header: 'host' has a meaning of its own in HTTP; take one such as 'x-turnout-version'"),
        ({"health": "{}"}, "health.path: missing; a path that answers 200 while an endpoint is well"),
        ({"health": "{path: /h, every: 10m}"}, "health.every: is not between 100ms and 5m"),
        (
            {"health": "{path: /h}", "protocol": "grpc"},
            "health.path: the service speaks grpc, and is asked by gRPC's own health service; leave the path out",
        ),
        ({"outliers": "{consecutive_5xx: 0}"}, "outliers.consecutive_5xx: 0 is too small; at least 1 is needed"),
        ({"limits": "{requests: 0}"}, "limits.requests: 0 is too small; at least 1 is needed"),
        ({"upstream_tls": "{ca: ca.crt, name: a.b}"}, "upstream_tls.ca: 'ca.crt' is not a whole path of a file, such as '/etc/turnout/tls.crt'"),
        ({"upstream_tls": '{ca: /ca.crt, name: "*.b"}'}, "upstream_tls.name: '*.b' is a pattern; one host is needed"),
        (
            {"versions": '{v1: {endpoints: [{address: "10.0.0.1:80", zone: a}, "10.0.0.2:80"]}}'},
            "versions.v1.endpoints: 1 of 2 endpoints have a zone; give each of them one, or none",
        ),
        ({"routes": "[{host: a, rewrite: {}}]"}, "routes[0].rewrite: has none; path or host is needed"),
        (
            {"routes": "[{host: a, websockets: true}]", "protocol": "grpc"},
            "routes[0].websockets: is true, but the service speaks grpc; websockets need http or http2",
        ),
        (
            {"balance": "ring_hash", "user": "{otherwise: random}"},
            "warning: balance: is ring_hash, but nobody has an identity by which to keep an endpoint; give `user.from`",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_are_named(lines, found):
    [text] = problems(**lines)

    assert found in text


POLICY = """\
---
kind: Policy
name: p
steps:
  - {{name: a, everyone: 1%, mirror: {mirror}}}
  - {{name: all, everyone: 100%}}
conditions: []
guard: {{hold_back: 1%}}
---
kind: Segment
name: some
match: {match}
---
kind: Release
name: r
service: s
from: v1
to: v2
policy: p
start: auto
"""


def mirrored(mirror, match="{header: {name: x-a, present: true}}", **lines):
    versions = '{v1: {endpoints: ["10.0.0.1:80"]}, v2: {endpoints: ["10.0.0.2:80"]}}'
    fields = FIELDS | {"versions": versions} | lines
    text = FLEET + "".join(f"{key}: {value}\n" for key, value in fields.items())
    text += POLICY.format(mirror=mirror, match=match)
    return [str(p).partition(": ")[2] for p in load({"f": text.encode()}).errors]


def test_a_step_may_mirror():
    assert mirrored("{share: 10%}") == []
    assert mirrored("{segment: some, share: 100%}") == []
    assert mirrored("{segment: {method: GET}, share: 0.01%}") == []


@pytest.mark.parametrize(
    ("mirror", "more", "found"),
    [
        ("{share: 0%}", {}, "steps[0].mirror.share: 0% gives nobody"),
        ("{segment: none, share: 1%}", {}, "steps[0].mirror.segment: no Segment is named 'none'"),
        (
            "{segment: some, share: 1%}",
            {"match": "{cohort: {from: 0%, to: 1%}}"},
            "steps[0].mirror.segment: has a cohort or a list of users; requests are mirrored before users are drawn",
        ),
        ("{share: 1%}", {"protocol": "grpc"}, "policy: 'p' mirrors in step 'a', but 's' speaks grpc"),
    ],
)
def test_a_mirror_that_cannot_be_is_named(mirror, more, found):
    assert any(found in text for text in mirrored(mirror, **more))


def test_services_that_share_a_host_agree_on_its_raw_fields():
    def service(name, raw):
        fields = FIELDS | {"name": name, "routes": f"[{{host: a.example.com, path: /{name}}}]", "envoy": raw}
        return "".join(f"{key}: {value}\n" for key, value in fields.items())

    some, others = (
        f"{{virtual_host: {{include_request_attempt_count: {value}}}}}" for value in ("true", "false")
    )
    same = load(
        {"f": "---\n".join([FLEET[:-4], service("s", some), service("t", some), service("u", "{}")]).encode()}
    )
    last = load({"f": (FLEET + service("s", some)).encode()})
    both = load({"f": "---\n".join([FLEET[:-4], service("s", some), service("t", others)]).encode()})
    late = load({"g": service("t", others).encode()}, last.catalog, keep_absent=True)

    text = "envoy.virtual_host: host a.example.com on fleet 'edge' has other raw fields by Service"
    assert same.problems == last.problems == ()
    assert [str(p).partition(": ")[2].partition(";")[0] for p in both.problems] == [
        f"{text} 't'",
        f"{text} 's'",
    ]
    assert late.refused == (("Service", "t"),)
    assert [str(p).partition(": ")[2] for p in late.problems] == [f"{text} 's'; one of both may have them"]
