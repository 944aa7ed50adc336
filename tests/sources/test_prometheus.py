"""Queries over a real HTTP server that speaks Prometheus' API, and over Prometheus where it is installed."""

import asyncio
import contextlib
import json
import shutil
from urllib.parse import parse_qs

import httpx
import pytest

from controlplane.demo.ports import free_ports
from controlplane.evidence.observation import Reading
from controlplane.sources.prometheus import (
    AT_ONCE,
    HANGING_AT_ONCE,
    MAX_KEPT,
    Prometheus,
    Query,
    UnansweredError,
    filled,
    value,
)
from tests.waiting import PATIENCE, until


def vector(*numbers):
    result = [{"metric": {}, "value": [1.0, number]} for number in numbers]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


ANSWERS = {  # by query
    "queue": (200, vector("12.5")),
    "queue_v1": (200, vector("7")),
    "scalar": (200, {"status": "success", "data": {"resultType": "scalar", "result": [1.0, "3"]}}),
    "none": (200, vector()),
    "two": (200, vector("1", "2")),
    "nan": (200, vector("NaN")),
    "matrix": (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}),
    "bad": (400, {"status": "error", "errorType": "bad_data", "error": "parse error"}),
    "html": (502, "<html>"),
    "odd": (200, {"status": "success"}),
    "list": (200, [1, 2]),
    "vast": (200, {"status": "success", "data": {"resultType": "scalar", "result": [1.0, 10**400]}}),
    "deep": (200, "[" * 200_000 + "]" * 200_000),
    "long": (200, vector(*["1"] * 50_000)),
}


@pytest.fixture
async def server():
    """Serve ANSWERS, and `slow` never; yields the address and the queries that came."""
    came, handling, over = [], set(), asyncio.Event()

    async def handle(reader, writer):
        handling.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # whoever asked may give up
            await answer(reader, writer)
        writer.close()

    async def answer(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.lower().split("\r\n")
        length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
        query = parse_qs((await reader.readexactly(length)).decode())["query"][0]
        came.append((head.split(" ")[1], query))
        if query == "slow":
            await over.wait()
            return
        status, body = ANSWERS[query]
        text = body if isinstance(body, str) else json.dumps(body)
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
        )
        await writer.drain()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}", came
    running.close()
    over.set()  # a handler that is cancelled instead would be logged
    await asyncio.gather(*handling)


async def asked(url, *queries, within=PATIENCE, prometheus=None):
    prometheus = prometheus or Prometheus(url, clock=lambda: 0.0, timeout=within)
    prometheus.want(queries)
    async with httpx.AsyncClient(trust_env=False) as client:
        await asyncio.gather(*(prometheus.ask(client, each) for each in queries))
    return prometheus


def query(text, baseline="", every=10.0, **more):
    return Query("shop", "q", text, baseline, every, **more)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("queue", Reading("q", 12.5)),
        ("scalar", Reading("q", 3.0)),
        ("none", Reading("q", None, None, "the query gives no series; one is needed")),
        ("two", Reading("q", None, None, "the query gives 2 series; one is needed")),
        ("nan", Reading("q", None, None, "the query gives NaN")),
        ("matrix", Reading("q", None, None, "the query gives a matrix; one number is needed")),
        ("bad", Reading("q", None, None, "Prometheus says parse error")),
        ("html", Reading("q", None, None, "Prometheus answered 502 and no JSON")),
        ("odd", Reading("q", None, None, "the answer is not one of Prometheus")),
        ("list", Reading("q", None, None, "the answer is not one of Prometheus")),
        ("vast", Reading("q", None, None, "the answer is not one of Prometheus")),
        ("deep", Reading("q", None, None, "Prometheus answered 200 and no JSON")),
        ("long", Reading("q", None, None, "the answer is longer than 1 MiB; one number is needed")),
    ],
)
async def test_one_number_is_a_reading_and_all_else_says_why_not(server, text, reading):
    url, came = server

    prometheus = await asked(url, query(text))

    assert prometheus.take() == {"shop": (reading,)}
    assert came == [("/api/v1/query", text)]


async def test_an_address_that_is_none_is_no_answer():
    prometheus = await asked("http://[::1", query("queue"))

    (reading,) = prometheus.take()["shop"]
    assert reading.problem.startswith("the address of Prometheus is none")


async def test_the_baseline_is_asked_about_too_where_it_is_compared(server):
    url, _ = server

    both = await asked(url, query("queue", "queue_v1"))
    half = await asked(url, query("queue", "none"))

    limited = await asked(url, query("queue", "none", compared=False))

    assert limited.take()["shop"] == (Reading("q", 12.5),)
    assert both.take()["shop"] == (Reading("q", 12.5, 7.0),)
    assert half.take()["shop"][0].problem == "for the baseline, the query gives no series; one is needed"


async def test_a_server_that_hangs_or_is_not_there_is_said_so(server):
    url, _ = server

    slow = await asked(url, query("slow"), within=0.2)
    gone = await asked("http://127.0.0.1:9", query("queue"))
    unset = await asked(None, query("queue"))

    assert "did not answer" in slow.take()["shop"][0].problem
    assert "cannot be reached" in gone.take()["shop"][0].problem
    assert "turnout serve --prometheus" in unset.take()["shop"][0].problem


@pytest.fixture
async def running():
    """Return what runs a Prometheus until the test ends."""
    tasks = []

    def run(prometheus):
        tasks.append(asyncio.create_task(prometheus.run()))
        return prometheus

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_query_is_asked_at_its_own_interval(server, running):
    url, came = server
    prometheus = running(Prometheus(url))
    quick, slower = query("queue", every=0.1), Query("shop", "other", "scalar", "", 1.0)
    prometheus.want([quick, slower])

    await until(lambda: sum(text == "scalar" for _, text in came) == 4)  # at 0, 1, 2 and 3 s

    assert sum(text == "queue" for _, text in came) >= 8


async def test_queries_that_hang_delay_no_other(server, running):
    url, came = server
    prometheus, loop = running(Prometheus(url, timeout=0.5)), asyncio.get_running_loop()
    hanging = [Query("cart", f"q{n}", "slow", "slow", 0.6) for n in range(3 * AT_ONCE)]
    prometheus.want([*hanging, query("queue", every=0.1)])
    await until(lambda: "shop" in prometheus.take())
    await until(lambda: sum(text == "slow" for _, text in came) >= len(hanging))  # all have hung once
    before, hung = len(prometheus.take()["shop"]), sum(text == "slow" for _, text in came)
    began = loop.time()

    await until(lambda: len(prometheus.take()["shop"]) >= before + 20)

    asked, rounds = sum(text == "slow" for _, text in came) - hung, (loop.time() - began) / 0.5
    # A few of them at once, and not as many as there is room for.
    assert asked <= HANGING_AT_ONCE * (rounds + 2)
    assert all("did not answer within" in reading.problem for reading in prometheus.take()["cart"])


async def test_a_query_that_is_changed_or_gone_is_asked_no_more(server, running):
    url, came = server
    prometheus = running(Prometheus(url))
    prometheus.want([query("slow")])
    await until(lambda: came)
    prometheus.want([query("queue", every=0.05)])
    await until(lambda: len(came) > 2)
    prometheus.want(())
    running(Prometheus(url)).want([query("scalar", every=0.05)])  # as often, so it tells how long we watch
    await until(lambda: sum(text == "scalar" for _, text in came) >= 12)

    texts = [text for _, text in came]
    assert set(texts[1:]) == {"queue", "scalar"}
    assert "queue" not in texts[texts.index("scalar") + 3 :]  # one that was under way may come last
    assert prometheus.take() == {}


async def test_each_answer_is_stored_once(server):
    url, _ = server
    prometheus = await asked(url, query("queue"))
    await asked(url, query("queue"), prometheus=prometheus)

    assert len(prometheus.take()["shop"]) == 2
    await asked(url, query("queue"), prometheus=prometheus)
    prometheus.commit()  # what arrived after it was taken stays
    assert len(prometheus.take()["shop"]) == 1
    prometheus.want(())
    assert prometheus.take() == {}


async def test_answers_that_wait_for_the_store_grow_old_and_the_newest_are_kept(server):
    url, _ = server
    now = 0.0
    prometheus = Prometheus(url, clock=lambda: now)
    for second in range(MAX_KEPT + 5):
        now = float(second)
        prometheus._keep("shop", Reading("q", now))
        if second == 9:
            prometheus.take()  # and storing fails for a while
    prometheus.want([query("queue")])
    kept = prometheus.take()["shop"]
    prometheus._keep("shop", Reading("q", -1.0))
    prometheus.commit()

    assert [kept[0], kept[-1]] == [Reading("q", 5.0, age=999.0), Reading("q", 1004.0)]
    assert prometheus.take()["shop"] == (Reading("q", -1.0),)


def test_places_are_filled_in_and_other_dollars_stay():
    places = {"service": "shop", "version": "v2", "baseline": "v1", "segment": "everyone"}

    assert filled('a{s="$service",v="$version",b=~"$baseline$",g="$segment"}[$__range]', places) == (
        'a{s="shop",v="v2",b=~"v1$",g="everyone"}[$__range]'
    )


def test_an_answer_that_is_no_mapping_is_refused():
    for body in (None, [], "x", {"status": "success", "data": {"resultType": "vector", "result": [{}]}}):
        with pytest.raises(UnansweredError):
            value(body)


async def test_a_real_prometheus_is_understood(tmp_path):
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no prometheus on this machine")
    (port,) = free_ports(1)
    (tmp_path / "p.yml").write_text("global: {scrape_interval: 1s}\n")
    process = await asyncio.create_subprocess_exec(
        binary, f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            await asked(None, query("vector(42)"), prometheus=prometheus)
            reading = prometheus.take()["shop"][-1]
            if reading.canary is not None or asyncio.get_running_loop().time() > deadline:
                break
            prometheus.want(())
            await asyncio.sleep(0.2)  # it starts
    finally:
        process.terminate()
        await process.wait()

    assert reading == Reading("q", 42.0)
