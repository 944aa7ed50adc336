"""Documents that many tests start from: one fleet, one service of two versions, a policy, an order."""

FLEET = """\
kind: Fleet
name: edge
nodes: {cluster: edge}
listeners: [{name: http, address: "127.0.0.1:8080"}]
"""
SERVICE = """\
kind: Service
name: shop
fleets: [edge]
routes: [{host: shop.example.com}]
user: {from: [{cookie: u}]}
initial: v1
versions:
  v1: {endpoints: ["10.0.0.1:80"]}
  v2: {endpoints: ["10.0.0.2:80"]}
"""
POLICY = """\
kind: Policy
name: quick
steps:
  - {name: staff, segment: {cookie: {name: staff, equals: "yes"}}, share: 100%, for: 5s}
  - {name: ten, everyone: 10%, for: 10s}
  - {name: all, everyone: 100%, for: 5s}
conditions: [{errors: {against: baseline, margin: 25%}}, {latency: off}]
guard: {for: 15s, hold_back: 2%}
"""
BRISK = """\
kind: Policy
name: quick
steps: [{name: ten, everyone: 10%}, {name: all, everyone: 100%}]
conditions: []
guard: {hold_back: 2%}
"""
RELEASE = """\
kind: Release
name: shop-2
service: shop
from: v1
to: v2
policy: quick
start: auto
"""


def placed(name, v1, v2):
    """Return a service on `edge` under a name of its own, with both versions on loopback at these ports."""
    return f"""\
kind: Service
name: {name}
fleets: [edge]
routes: [{{host: {name}.example.com}}]
user: {{from: [{{header: x-user-id}}, {{cookie: uid}}], otherwise: baseline}}
initial: v1
versions:
  v1: {{endpoints: ["127.0.0.1:{v1}"]}}
  v2: {{endpoints: ["127.0.0.1:{v2}"]}}
"""
