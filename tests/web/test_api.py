"""Each route over a real control plane with a store of its own: answers, and refusals in words."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from controlplane.app.metrics import Metrics
from controlplane.evidence.observation import Cell, Measure
from controlplane.release.ports import StoreError
from controlplane.web.api import MAX_BODY, Api
from tests.documents import BRISK, FLEET, SERVICE

FILES = {"fleet.yaml": FLEET, "shop.yaml": SERVICE, "quick.yaml": BRISK}
ORDER = {"service": "shop", "to": "v2", "policy": "quick", "actor": "ann"}
ANN = {"actor": "ann"}
INTERVAL = timedelta(seconds=5)
API_PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def empty(plane):
    """A client of a plane without documents."""
    registry = CollectorRegistry()
    registry.register(Metrics(plane))
    transport = httpx.ASGITransport(Api(plane, registry).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://turnout") as client:
        yield client


@pytest.fixture
async def api(empty):
    """A client of a plane with a service and a policy."""
    answer = await empty.post("/v1/documents", json={"files": FILES, "actor": "ann"})
    assert answer.status_code == 200, answer.text
    return empty


async def error(answer, status, *words):
    answer = await answer
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    for word in words:
        assert word in answer.json()["error"]


async def test_health(empty, plane):
    assert (await empty.get("/livez")).text == "ok\n"
    assert (await empty.get("/readyz")).status_code == 200
    plane.loop.world = None
    assert (await empty.get("/livez")).status_code == 200
    assert (await empty.get("/readyz")).status_code == 503
    for path in ("services", "releases", "releases/x", "records?release=x"):
        await error(empty.get(f"/v1/{path}"), 503, "not loaded yet")
    assert (await empty.get("/metrics")).status_code == 200


async def test_an_empty_plane_shows_nothing(empty):
    for path in ("services", "releases", "proxies", "problems", "records", "blackouts"):
        answer = await empty.get(f"/v1/{path}")
        assert (answer.status_code, answer.json()) == (200, [])
        assert answer.headers["content-type"] == "application/json"


async def test_a_release_from_order_to_end(api, plane):
    ordered = await api.post("/v1/releases", json=ORDER)
    assert (ordered.status_code, ordered.json()["name"], ordered.json()["phase"]) == (
        201,
        "shop-v2",
        "waiting",
    )
    for action, phase, halt in (
        ("advance", "progressing", None),
        ("pause", "progressing", "paused"),
        ("resume", "progressing", None),
        ("advance", "progressing", None),
        ("advance", "guarding", None),
        ("promote", "promoted", None),
    ):
        done = await api.post(f"/v1/releases/shop-v2/{action}", json=ANN)
        assert (done.status_code, done.json()["phase"], done.json()["halt"]) == (200, phase, halt)

    assert (await api.get("/v1/releases/shop-v2")).json() == done.json()
    assert [r["name"] for r in (await api.get("/v1/releases")).json()] == ["shop-v2"]
    assert (await api.get("/v1/services")).json()[0]["stable"] == "v2"
    records = (await api.get("/v1/records", params={"release": "shop-v2"})).json()
    assert Counter(r["action"] for r in records) == {
        "order": 1, "advance": 3, "pause": 1, "resume": 1, "promote": 1,
    }  # fmt: skip
    last = (await api.get("/v1/records", params={"release": "shop-v2", "limit": "2"})).json()
    assert last == records[-2:]
    back = await api.post("/v1/services/shop/switch", json={**ANN, "version": "v1"})
    assert (back.status_code, back.json()["stable"]) == (200, "v1")
    assert 'turnout_release_phase{phase="promoted",release="shop-v2"} 1.0' in (await api.get("/metrics")).text


async def test_names_that_are_not_known_are_404_with_those_that_are(api):
    await api.post("/v1/releases", json=ORDER)

    await error(api.get("/v1/releases/x"), 404, "'x'", "known: shop-v2")
    await error(api.post("/v1/releases/x/pause", json=ANN), 404, "'x'", "known: shop-v2")
    await error(api.post("/v1/releases/shop-v2/halt", json=ANN), 404, "'halt'", "pause")
    await error(api.get("/v1/records", params={"release": "x"}), 404, "known: shop-v2")
    await error(api.post("/v1/releases", json={**ORDER, "service": "x"}), 404, "known: shop")
    await error(api.post("/v1/releases", json={**ORDER, "policy": "x"}), 404, "known: quick")
    await error(api.post("/v1/releases", json={**ORDER, "to": "x"}), 404, "known: v1, v2")
    await error(api.post("/v1/services/x/switch", json={**ANN, "version": "v1"}), 404, "known: shop")
    await error(api.get("/v1/nothing"), 404)
    await error(api.get("/"), 404)


async def test_what_does_not_fit_the_state_is_409(api):
    await api.post("/v1/releases", json=ORDER)

    await error(api.post("/v1/releases", json=ORDER), 409, "is waiting")
    await error(api.post("/v1/releases", json={**ORDER, "to": "v1"}), 409, "stable already")
    await error(api.post("/v1/releases/shop-v2/promote", json=ANN), 409, "possible: ")


@pytest.mark.parametrize("path", ["releases", "releases/r/pause", "services/shop/switch", "documents"])
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_only_json_is_taken_since_any_page_may_post_the_rest(api, path, kind):
    headers = {"content-type": kind} if kind else {}

    await error(api.post(f"/v1/{path}", content=b"{}", headers=headers), 415, "application/json")


@pytest.mark.parametrize("path", ["releases", "releases/r/pause", "services/shop/switch", "documents"])
async def test_a_body_has_a_limit_also_when_its_length_is_not_told(api, path):
    asked = 0

    async def endless():
        nonlocal asked
        while True:
            asked += 1
            yield b" " * 65_536

    headers = {"content-type": "application/json"}
    await error(api.post(f"/v1/{path}", content=endless(), headers=headers), 413, str(MAX_BODY))
    assert asked < 100


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["body"]),
        (b"not json", ["the body is not JSON"]),
        (b"[]", ["body"]),
        (b"\xff\xfe", ["body"]),
        (b"[" * 100_000, ["body"]),
        (b'{"service": "shop"}', ["to: missing; it is required", "policy: missing", "actor: missing"]),
        (b'{"service": 5, "to": "v2", "policy": "quick", "actor": "a"}', ["service: "]),
        (
            b'{"service": "shop", "to": "v2", "policy": "quick", "actor": "a", "force": true}',
            ["force: unknown field; known: "],
        ),
        (b'{"service": "shop", "to": "v2", "policy": "quick", "actor": ""}', ["actor: "]),
        (b'{"service": "shop", "to": "v2", "policy": "quick", "actor": "a", "name": "A B"}', ["name: "]),
    ],
)
async def test_a_body_that_is_not_an_order_is_400_with_every_mistake(api, body, words):
    await error(
        api.post("/v1/releases", content=body, headers={"content-type": "application/json"}), 400, *words
    )


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1e3", "10001", "99999999999999999999", "²", ""])
async def test_a_limit_is_a_number_in_range(api, limit):
    await error(api.get("/v1/records", params={"limit": limit}), 400, "1 to 10000")


async def test_a_method_that_a_route_does_not_have_is_405(api):
    await error(api.get("/v1/adopt"), 405)
    await error(api.delete("/v1/releases/shop-v2"), 405)


async def test_a_blackout_of_two_forms_is_refused_with_those_that_there_are(api):
    wanted = {**ANN, "fleet": "edge", "for": "1h", "zone": "Europe/Berlin"}

    await error(api.post("/v1/blackouts", json=wanted), 400, "from and to", "`for` alone, without a zone")
    assert (await api.post("/v1/blackouts", json={**ANN, "fleet": "edge", "for": "1h"})).status_code == 201


@pytest.mark.parametrize("line", [line for line in API_PAGE.splitlines() if line.startswith("curl --json")])
async def test_the_commands_of_the_page_are_taken(api, line):
    """What they name is not there; a body that does not fit would be 400."""
    body, address = re.fullmatch(r"curl --json '(.*)' (\S+)", line).groups()

    answer = await api.post(httpx.URL(address).path, json=json.loads(body))

    assert answer.status_code == 404, answer.text


# --- documents --------------------------------------------------------------------------------------------


async def test_documents_that_are_all_refused_are_422_with_their_places(api):
    bad = BRISK.replace("everyone: 10%", "everyone: 400%")

    answer = await api.post("/v1/documents", json={"files": {"q.yaml": bad}, "actor": "ann"})

    assert answer.status_code == 422
    assert answer.json()["accepted"] == []
    assert answer.json()["problems"][0].startswith("q.yaml:3:")


async def test_documents_that_are_partly_right_are_200_with_both(api):
    files = {"q.yaml": BRISK.replace("quick", "other"), "x.yaml": "kind: Nothing"}

    answer = await api.post("/v1/documents", json={"files": files, "actor": "ann"})

    assert answer.status_code == 200
    assert answer.json()["accepted"] == ["Policy other"]
    assert len(answer.json()["problems"]) == 1


@pytest.mark.parametrize("known", [False, True])
async def test_a_policy_that_asks_prometheus_is_warned_about_where_none_is_known(api, plane, known):
    plane.answers_queries = known
    asking = BRISK.replace("quick", "asking").replace(
        "conditions: [", "conditions: [{prometheus: {name: q, query: up, at_most: 1}}, "
    )

    answer = await api.post("/v1/documents", json={"files": {"q.yaml": asking}, "actor": "ann"})
    again = await api.post("/v1/documents", json={"files": {"q.yaml": asking}, "actor": "ann"})

    assert answer.json()["accepted"] == ["Policy asking"], answer.text
    told = [
        "Policy 'asking' asks Prometheus, and this server knows none" in w for w in answer.json()["warnings"]
    ]
    assert sum(told) == (not known)
    assert not any("Prometheus" in warning for warning in again.json()["warnings"])  # it is not new


@pytest.mark.parametrize("hostile", ["[" * 50_000, "a: &a [x]\n" + "b: *a\n" * 50_000, "\0", "\ud800"])
async def test_hostile_documents_are_refused_in_words(api, hostile):
    body = json.dumps({"files": {"x.yaml": hostile}, "actor": "ann"})

    answer = await api.post("/v1/documents", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == (400 if hostile == "\ud800" else 422)
    assert "x.yaml" in answer.text or "is not JSON" in answer.text


async def test_no_files_are_no_documents(api):
    await error(api.post("/v1/documents", json={"files": {}, "actor": "ann"}), 400, "files: ")


# --- a store that fails -----------------------------------------------------------------------------------


async def test_a_store_that_fails_is_503_and_the_rest_is_still_shown(api, plane, monkeypatch):
    async def fails(*_):
        raise StoreError("disk full")

    monkeypatch.setattr(plane.store, "commit", fails)
    monkeypatch.setattr(plane.store, "records", fails)

    await error(api.post("/v1/releases", json=ORDER), 503, "nothing was changed: disk full")
    await error(api.get("/v1/records"), 503, "disk full")
    with pytest.raises(StoreError):
        await plane.loop.tick(datetime.now(UTC), 1.0)
    assert (await api.get("/v1/services")).json()[0]["name"] == "shop"


async def test_blackouts_are_added_listed_and_ended(api):
    added = await api.post("/v1/blackouts", json={"fleet": "edge", "for": "2h", "reason": "audit"} | ANN)
    assert (added.status_code, added.json()[0]["id"], added.json()[0]["because"]) == (201, "b1", "audit")
    assert (await api.get("/v1/blackouts")).json() == added.json()

    await error(api.post("/v1/blackouts", json={"fleet": "edge", "for": "2 h"} | ANN), 400, "for: '2 h'")
    await error(api.post("/v1/blackouts/b9/end", json=ANN), 404, "known: b1")
    ended = await api.post("/v1/blackouts/b1/end", json=ANN)

    assert (ended.status_code, ended.json()) == (200, [])


async def test_a_request_is_explained_by_rule_share_bucket_and_version(api):
    async def explained(text, **more):
        answer = await api.post("/v1/explain", json={"request": text, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    idle = await explained("GET http://shop.example.com/a?b=c cookie: u=7")
    await api.post("/v1/releases", json=ORDER)
    await api.post("/v1/releases/shop-v2/advance", json=ANN)
    found = await explained("http://shop.example.com cookie: u=user-8; a=b")
    nobody = await explained("POST shop.example.com/a/b accept: */*")

    assert (idle["service"], idle["version"], idle["release"], idle["share"]) == ("shop", "v1", "", "0%")
    assert idle["because"] == "no release is in progress, so v1 has every request"
    assert (found["release"], found["segment"], found["rule"], found["rules"]) == (
        "shop-v2",
        "everyone",
        1,
        1,
    )
    assert (found["user"], found["source"], found["salt"]) == ("user-8", "cookie u", "shop-v2.1")
    assert found["version"] == ("v2" if found["bucket"] < 1000 else "v1")
    assert nobody["user"] is None
    assert nobody["bucket"] is None


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ("GET http://other.test/", 404, "no service claims other.test/"),
        ("GET", 400, "has no URL"),
        ("GET http://shop.example.com/a//b", 400, "is rewritten before it is routed"),
        ("GET http://shop.example.com/a stray", 400, "headers are written 'name: value'"),
        ("http://shop.example.com cookie: u=1 cookie: u=2", 400, "several lines"),
    ],
)
async def test_a_request_that_cannot_be_explained_is_refused_in_words(api, request_, status, words):
    await error(api.post("/v1/explain", json={"request": request_}), status, words)


async def test_a_cohort_is_published_with_all_that_it_takes(api):
    await api.post("/v1/releases", json=ORDER)
    users = [f"user-{i}" for i in range(200)]

    async def cohort(**asked):
        answer = await api.post("/v1/releases/shop-v2/cohort", json=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    none, ten, whole = (
        await cohort(users=users),
        await cohort(step="ten", users=users),
        await cohort(step="all"),
    )

    assert not any(user["canary"] for user in none["users"])
    assert ten["groups"] == [{"segment": "everyone", "share": "10%", "spans": [[0, 1000]]}]
    assert [u["canary"] for u in ten["users"]] == [u["bucket"] < 1000 for u in ten["users"]]
    assert whole["groups"][0]["spans"] == [[0, 9800]]
    assert (ten["salt"], ten["canary"], ten["stable"]) == ("shop-v2.1", "v2", "v1")
    await error(api.post("/v1/releases/shop-v2/cohort", json={"step": "x"}), 404, "known: ten, all")
    await error(api.post("/v1/releases/shop-v2/cohort", json={"segment": "x"}), 404, "known: everyone")
    await error(api.post("/v1/releases/x/cohort", json={}), 404, "no release is named 'x'")


async def test_values_of_a_metric_are_pushed_and_stored_with_the_next_interval(api, plane):
    metrics = "metrics: {orders: {better: more}, clicks: {header: x-click, better: more}}\n"
    await api.post("/v1/documents", json={"files": {"shop.yaml": SERVICE + metrics}, "actor": "ann"})
    push = {"version": "v2", "n": 40, "sum": 3, "key": "batch-1"}

    first = await api.post("/v1/services/shop/metrics/orders", json=push)
    again = await api.post("/v1/services/shop/metrics/orders", json=push)

    assert (first.status_code, first.json(), again.json()) == (202, {"counted": True}, {"counted": False})
    url = "/v1/services/shop/metrics"
    await error(api.post(f"{url}/clicks", json=push), 404, "no metric 'clicks' that is pushed", "orders")
    await error(api.post(f"{url}/orders", json=push | {"version": "v9"}), 400, "'v9' is not one of v1, v2")
    bare = {"version": "v2"}
    for said in ({}, {"n": 40}, {"n": 0, "sum": 0}, {"n": 4, "sum": 1, "users": {"ada": 1}}, {"users": {}}):
        text = "the body: either n, 1 at least, with sum, or users, is needed"
        await error(api.post(f"{url}/orders", json=bare | said), 400, text)
    for said, text in (
        ({"n": True, "sum": 1}, "n: true stands where a whole number belongs"),
        ({"n": 4.5, "sum": 1}, "n: 4.5 stands where a whole number belongs"),
        ({"n": 4, "sum": "1"}, "sum: '1' stands where a number belongs"),
        ({"users": {"ada": "yes"}}, "users.ada: 'yes' stands where a number belongs"),
    ):
        await error(api.post(f"{url}/orders", json=bare | said), 400, text)
    beyond = push | {"sum": 1000, "key": ""}
    await error(api.post(f"{url}/orders", json=beyond), 400, "1000 of n 40; 'orders' is counted, so at most")
    for segment, why in (("nosuch", "'nosuch' is not one of everyone"), ("anonymous", "is in no comparison")):
        await error(api.post(f"{url}/orders", json=push | {"segment": segment}), 400, why)
    seen, _ = await plane.loop._statistics.observe(await plane.store.world(), T0, T0 + INTERVAL)
    assert seen["shop"].measures == (Measure(Cell("pushed", "everyone", "v2"), "orders", 3.0, 40, age=0.0),)


async def test_a_push_may_be_of_any_segment_that_a_document_or_a_policy_has(api, plane):
    metrics = "metrics: {orders: {better: more}, cents: {better: more, sum: true}}\n"
    segments = "---\nkind: Segment\nname: beta\nmatch: {header: {name: x-beta, present: true}}\n"
    inline = "---\nkind: Policy\nname: eu\nsteps: [{name: eu-first, segment: {method: PUT}, share: 50%},"
    inline += " {name: all, everyone: 100%}]\nconditions: [errors: {against: baseline}]\n"
    files = {"shop.yaml": SERVICE + metrics + segments + inline}
    applied = await api.post("/v1/documents", json={"files": files, "actor": "ann"})
    assert not applied.json()["problems"], applied.text
    url = "/v1/services/shop/metrics"

    for segment in ("everyone", "beta", "eu-first"):
        push = {"version": "v2", "n": 40, "sum": 40, "segment": segment}
        assert (await api.post(f"{url}/orders", json=push)).json() == {"counted": True}
    assert (await api.post(f"{url}/cents", json=push | {"sum": 900})).json() == {"counted": True}
    await error(
        api.post(f"{url}/orders", json=push | {"segment": "eu"}), 400, "'eu' is not one of beta, eu-first"
    )
