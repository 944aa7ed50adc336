"""The documents of the demo, as an operator would write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Pace = Literal["fast", "real"]

FLEET = "edge"
SERVICE = "shop"
POLICY = "demo"
RELEASE = "shop-v2"
TIMEOUT_SECONDS = 5

_TEMPLATE = """\
kind: Fleet
name: {fleet}
nodes: {{cluster: {fleet}}}
listeners:
  - {{name: http, address: "127.0.0.1:{listener}", kind: edge}}
propagate: {{within: 10s, at_least: 100%}}
---
kind: Service
name: {service}
fleets: [{fleet}]
routes:
  - {{host: shop.example.com}}
user:
  from: [{{header: x-user-id}}, {{cookie: uid}}]
  otherwise: baseline
initial: v1
versions:
  v1: {{endpoints: ["127.0.0.1:{v1}"]}}
  v2: {{endpoints: ["127.0.0.1:{v2}"]}}
timeout: {timeout}s
---
kind: Policy
name: {policy}
steps:
{steps}
conditions:
  - errors: {{against: baseline, margin: 25%}}
  - success_rate: {{at_least: 97%}}
  - latency: {{p95: 50ms}}
  - latency: {{against: baseline, margin: {slower}}}
when_unsure: {{after: 20m, do: hold}}
on_failure: {{do: rollback}}
guard: {{for: {guard}, hold_back: 5%}}
---
kind: Release
name: {release}
service: {service}
from: v1
to: v2
policy: {policy}
start: auto
"""

_STEPS = (
    ("beta", 'segment: {cookie: {name: beta, equals: "1"}}, share: 50%'),
    ("cohort", "segment: {cohort: {from: 10%, to: 15%}}, share: 100%"),
    ("fifth", "everyone: 20%"),
    ("half", "everyone: 50%"),
    ("all", "everyone: 100%"),
)

_PACES = {
    # A wide margin takes few requests to prove; a minute has enough for a narrow one.
    "fast": {"step": "3s", "guard": "10s", "slower": "50%"},
    "real": {"step": "1m", "guard": "10m", "slower": "10%"},
}


def documents(listener: int, endpoints: Sequence[int], pace: Pace = "fast") -> str:
    """Return the YAML of Fleet, Service, Policy and Release, for these ports of loopback.

    ``listener`` is the one port on which all proxies of the fleet take requests: Envoys of one user share it
    by SO_REUSEPORT, and the kernel spreads the connections. ``endpoints`` are the ports of v1 and v2.
    ``fast`` has a small least time per step and a short guard; ``real`` what one would take for a service.
    """
    times = _PACES[pace]
    v1, v2 = endpoints
    return _TEMPLATE.format(
        fleet=FLEET,
        service=SERVICE,
        policy=POLICY,
        release=RELEASE,
        listener=listener,
        v1=v1,
        v2=v2,
        timeout=TIMEOUT_SECONDS,
        steps="\n".join(f"  - {{name: {name}, {rule}, for: {times['step']}}}" for name, rule in _STEPS),
        guard=times["guard"],
        slower=times["slower"],
    )
