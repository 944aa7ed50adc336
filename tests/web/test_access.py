"""Who gets an answer, and who may change what: every route with every role."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from controlplane.policy.roles import ROLES
from controlplane.web.access import Access
from controlplane.web.api import Api
from controlplane.web.operators import Operators, enrol, new_token

SERVICE = """\
kind: Service
name: {name}
fleets: [edge]
routes: [{{host: {name}.example.com}}]
user: {{from: [{{cookie: u}}]}}
metrics: {{sales: {{better: more}}}}
initial: v1
versions:
  v1: {{endpoints: ["10.0.0.1:80"]}}
  v2: {{endpoints: ["10.0.0.2:80"]}}
"""
POLICY = """\
kind: Policy
name: {name}
{more}
steps:
  - {{name: ten, everyone: 10%}}
  - {{name: half, everyone: 50%, approve: {{role: operator}}}}
  - {{name: all, everyone: 100%, approve: {{role: admin}}}}
conditions: []
"""
POINT = 'point_of_no_return: {approve: {role: admin}, run: {url: "http://127.0.0.1:1/"}}'
FILES = {
    "fleet.yaml": "kind: Fleet\nname: edge\nnodes: {cluster: edge}\n"
    "listeners: [{name: http, address: '127.0.0.1:80'}]\n",
    "shop.yaml": SERVICE.format(name="shop"),
    "cart.yaml": SERVICE.format(name="cart"),
    "calm.yaml": POLICY.format(name="calm", more=POINT),
    "urgent.yaml": POLICY.format(name="urgent", more="emergency: true"),
}
ME = {"actor": "somebody"}
PUSH = {"version": "v1", "n": 1, "sum": 1}
NEEDED = [  # the least role, and what takes it
    ("viewer", "explain", {"request": "GET http://shop.example.com/"}),
    ("viewer", "releases/shop-v2/cohort", {}),
    ("operator", "releases/shop-v2/pause", ME),
    ("operator", "releases/shop-v2/resume", ME),
    ("operator", "releases/shop-v2/rollback", ME),
    ("operator", "releases/shop-v2/end", ME),
    ("operator", "releases/shop-v2/retry", ME),
    ("operator", "releases/shop-v2/approve", ME),
    ("operator", "services/shop/metrics/sales", PUSH),
    ("operator", "proxies/resend", {**ME, "node": "edge-1"}),
    ("releaser", "releases", {**ME, "service": "shop", "to": "v2", "policy": "calm"}),
    ("releaser", "releases/shop-v2/advance", ME),
    ("releaser", "releases/shop-v2/promote", ME),
    ("releaser", "releases/nobody-knows/it", ME),
    ("releaser", "services/shop/switch", {**ME, "version": "v2"}),
    ("releaser", "undo/shop", ME),
    ("releaser", "blackouts", {**ME, "fleet": "edge", "for": "1h"}),
    ("releaser", "blackouts/x/end", ME),
    ("admin", "releases/shop-v2/approve", {**ME, "step": "all"}),
    ("admin", "releases/shop-v2/approve", {**ME, "step": "point_of_no_return"}),
    ("admin", "releases/shop-v2/rollback", {**ME, "past_point_of_no_return": True}),
    ("admin", "services/shop/switch", {**ME, "version": "v2", "past_point_of_no_return": True}),
    ("admin", "undo/shop", {**ME, "past_point_of_no_return": True}),
    ("admin", "releases", {**ME, "service": "shop", "to": "v2", "policy": "urgent", "reason": "down"}),
    ("operator", "releases/cart-v2/pause", ME),
    ("admin", "releases/cart-v2/advance", ME),
    ("admin", "releases/cart-v2/retry", ME),
    ("admin", "adopt", {**ME, "adopt": {"shop": "v2"}}),
    ("admin", "documents", {**ME, "files": {"none.txt": ""}}),
]


@pytest.fixture
async def site(plane, tmp_path):
    """A client that speaks with the token of a name; each role is a name, and ``of`` one of service cart."""
    tokens, path = {}, tmp_path / "operators.yaml"
    for name in (*ROLES, "of"):
        tokens[name], digest = new_token()
        role = name if name in ROLES else "releaser"
        enrol(path, name, role, ("cart",) if name == "of" else (), digest)
    api = Api(plane, CollectorRegistry(), Access(Operators(path)))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://turnout") as client:

        async def ask(name, path, body=None, method="POST", **headers):
            if name:
                headers["authorization"] = f"Bearer {tokens[name]}"
            return await client.request(method, path, json=body, headers=headers)

        ask.routes = [route for route in api.app.routes if isinstance(route, Route)]
        documents = {"files": FILES, "actor": "x"}
        assert (await ask("admin", "/v1/documents", documents)).json()["problems"] == []
        for service, policy in (("shop", "calm"), ("cart", "urgent")):
            order = {**ME, "service": service, "to": "v2", "policy": policy, "reason": "r"}
            assert (await ask("admin", "/v1/releases", order)).status_code == 201
        yield ask


async def test_without_a_token_only_health_is_told(site):
    told = set()
    for route in site.routes:
        path = route.path.replace("{", "").replace("}", "")
        for method in route.methods - {"HEAD"}:
            for headers in ({}, {"authorization": "Bearer turnout_x"}, {"authorization": "Basic YTph"}):
                answer = await site("", path, {}, method, **headers)
                if answer.status_code != 401:
                    told.add(path)
                else:
                    assert answer.headers["www-authenticate"] == "Bearer"
    assert told == {"/livez", "/readyz"}


async def test_whoever_is_known_may_look(site):
    for route in site.routes:
        if "GET" in route.methods and route.path not in ("/v1/events", "/v1/releases/{name}/recording"):
            answer = await site("viewer", route.path.replace("{name}", "shop-v2"), method="GET")
            assert answer.status_code == 200, route.path


async def test_every_route_that_changes_something_has_its_role_here(site):
    asked = {("/v1/" + path) for _, path, _ in NEEDED}
    for route in site.routes:
        if "POST" in route.methods:
            assert any(route.path_regex.match(path) for path in asked), route.path


@pytest.mark.parametrize(("least", "path", "body"), NEEDED)
async def test_what_takes_a_role_is_refused_to_the_ones_below(site, least, path, body):
    below = ROLES[: ROLES.index(least)]
    for role in below:
        answer = await site(role, f"/v1/{path}", body)
        assert answer.status_code == 403, answer.text
        assert answer.json()["error"] == f"{role} is {role}; that takes {least}"

    assert (await site(least, f"/v1/{path}", body)).status_code not in (401, 403)


async def test_a_record_has_the_name_of_the_token_whatever_is_said(site):
    assert (await site("operator", "/v1/releases/shop-v2/pause", {"actor": "admin"})).status_code in (
        200,
        409,
    )
    await site("releaser", "/v1/releases/shop-v2/advance", {"actor": "admin"})
    await site("operator", "/v1/releases/shop-v2/approve", {"actor": "admin"})

    records = (await site("viewer", "/v1/records?release=shop-v2", method="GET")).json()

    assert [(r["action"], r["actor"]) for r in records if r["action"] in ("advance", "approve")] == [
        ("advance", "releaser"),
        ("approve", "operator"),
    ]


async def test_an_approval_is_for_what_was_asked_about(site):
    await site("releaser", "/v1/releases/shop-v2/advance", ME)
    assert (await site("operator", "/v1/releases/shop-v2/approve", ME)).status_code == 200

    # The next one that waits takes an admin.
    answer = await site("operator", "/v1/releases/shop-v2/approve", ME)

    assert answer.status_code == 403
    assert answer.json()["error"].endswith("that takes admin")


async def test_a_role_of_one_service_is_for_that_alone(site):
    order = {**ME, "service": "cart", "to": "v1", "policy": "calm"}
    assert (
        await site("of", "/v1/releases", order)
    ).status_code == 409  # v1 is stable: that is not about roles
    for path, body in (
        ("releases/shop-v2/pause", ME),
        ("releases", {**ME, "service": "shop", "to": "v2", "policy": "calm"}),
        ("services/shop/switch", {**ME, "version": "v2"}),
        ("blackouts", {**ME, "fleet": "edge", "for": "1h"}),
    ):
        answer = await site("of", f"/v1/{path}", body)
        assert answer.status_code == 403, path
        assert answer.json()["error"].endswith("of is releaser of cart")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:18080", 200),
        ("localhost", 200),
        ("[::1]:18080", 200),
        ("evil.example", 403),
        ("10.0.0.1", 403),
    ],
)
async def test_a_name_that_was_made_to_point_here_is_not_served(plane, host, status):
    api = Api(plane, CollectorRegistry(), Access(local=True))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://x") as client:
        answer = await client.get("/v1/services", headers={"host": host})

    assert answer.status_code == status
