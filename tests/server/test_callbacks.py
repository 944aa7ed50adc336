"""What an embedding program's own functions are told, and what becomes of those that raise."""

from __future__ import annotations

import contextlib

import grpc
import pytest

from controlplane._pb.cluster_pb2 import Cluster
from controlplane.server import Cache, Callbacks, Limits, TlsFiles, refuse_stranger, serve
from controlplane.xds.type_urls import CLUSTER

DELTA = "DeltaAggregatedResources"


@pytest.fixture
async def start():
    """Serve a cache, and connect clients to it by node id."""
    async with contextlib.AsyncExitStack() as leaving:

        async def started(kit, cache, callbacks):
            served = await leaving.enter_async_context(serve(cache, "127.0.0.1:0", callbacks, drain=0))
            channel = await leaving.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{served.port}"))
            return served, lambda node: kit.Call(channel, f"/{kit.ADS}/{DELTA}", node)

        yield started


def told(seen, broken=""):
    """Callbacks that note who called what; one of them raises."""

    def note(name):
        def called(view, *_):
            seen.append((name, view.node.id))
            if name == broken:
                raise KeyError("a secret of the program")

        return called

    return Callbacks(**{name: note(name) for name in ("connected", "acked", "nacked", "ended")})


@pytest.mark.usefixtures("unconfigured")
@pytest.mark.parametrize("broken", ["connected", "acked", "nacked", "ended"])
async def test_a_callback_that_raises_changes_nothing_for_the_client_and_is_logged(
    kit, start, broken, capsys
):
    seen, cache = [], Cache(lambda _node: "all")
    cache.set("all", CLUSTER, "a", Cluster(name="a"))
    _, connect = await start(kit, cache, told(seen, broken))
    call = connect("edge-1")

    await call.ask(CLUSTER)
    await call.ask(CLUSTER, response_nonce=(await call.hear()).nonce)
    cache.set("all", CLUSTER, "a", Cluster(name="a", alt_stat_name="new"))
    refused = await call.hear()
    await call.ask(CLUSTER, response_nonce=refused.nonce, error_detail={"message": b"no"})
    cache.set("all", CLUSTER, "b", Cluster(name="b"))
    assert [each.name for each in (await call.hear()).resources] == ["b"]
    await call.call.done_writing()

    assert await call.end() == (grpc.StatusCode.OK, "")
    await kit.until(lambda: len(seen) == 4)
    assert seen == [(name, "edge-1") for name in ("connected", "acked", "nacked", "ended")]
    logged = capsys.readouterr().out
    assert "a callback raised" in logged
    assert "KeyError: 'a secret of the program'" in logged
    assert "╭" not in logged  # drawn with all variables, it would stop the loop for a second


async def test_ended_is_told_only_of_whom_connected_was(kit, start):
    seen, cache = [], Cache(lambda node: "all" if node.id == "known" else None)
    cache.set("all", CLUSTER, "a", Cluster(name="a"))
    served, connect = await start(kit, cache, told(seen, "ended"))
    known, held, nameless, junk = (connect(name) for name in ("known", "held", "", ""))

    await known.ask(CLUSTER)
    await known.hear()
    await held.ask(CLUSTER)
    await kit.until(lambda: any(str(view) == "held" for view in served.xds.views()))
    nameless.node = b""
    await nameless.ask(CLUSTER)
    await junk.call.write(b"\xff\xff")

    assert await junk.end() == (grpc.StatusCode.INVALID_ARGUMENT, "not a DeltaDiscoveryRequest")
    assert (await nameless.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
    for call in (held, known):
        call.call.cancel()
    await kit.until(lambda: not served.xds.views())
    assert seen == [("connected", "known"), ("ended", "known")]


async def test_a_group_that_cannot_be_told_costs_its_own_stream_and_no_other(kit, start):
    known = set()

    def group_of(node):
        if known and node.id == "node-0":
            raise KeyError("a secret of the program")
        return "all" if node.id in known else None

    cache = Cache(group_of)
    cache.set("all", CLUSTER, "a", Cluster(name="a"))
    served, connect = await start(kit, cache, Callbacks())
    calls = [connect(f"node-{number}") for number in range(40)]
    for call in calls:
        await call.ask(CLUSTER)
    await kit.until(lambda: sum(view.node is not None for view in served.xds.views()) == 40)

    known.update(f"node-{number}" for number in range(40))
    served.xds.regroup()

    for call in calls[1:]:
        assert [each.name for each in (await call.hear()).resources] == ["a"]
    failed = (grpc.StatusCode.INTERNAL, "the server failed at this stream; its log says how")
    assert await calls[0].end() == failed
    again = connect("node-0")
    await again.ask(CLUSTER)
    assert await again.end() == failed
    assert served.xds.counts.closed == {"INTERNAL": 2}


async def test_a_group_that_is_no_string_is_named_in_the_log(start, kit, capsys):
    cache = Cache(lambda node: 5)
    with pytest.raises(TypeError, match="the group is 5; it must be a str"):
        cache.replace(5, {CLUSTER: {"a": Cluster(name="a")}})
    _, connect = await start(kit, cache, Callbacks())
    call = connect("node")

    await call.ask(CLUSTER)

    assert (await call.end())[0] is grpc.StatusCode.INTERNAL
    assert "group_of returned 5; it must return a str or None" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"first_requests": 0}, "first_requests is 0; it must be more than 0"),
        ({"first_requests": float("nan")}, "first_requests is nan; it must be more than 0"),
        ({"write_timeout": -1.0}, r"write_timeout is -1\.0; it must be more than 0"),
        ({"behind_timeout": -0.1}, r"behind_timeout is -0\.1; it must be 0 or more"),
        ({"streams_per_peer": 0}, "streams_per_peer is 0; it must be 1 or more"),
        ({"silent_per_peer": 0}, "silent_per_peer is 0; it must be 1 or more"),
    ],
)
def test_limits_by_which_nobody_is_served_are_refused(values, wrong):
    with pytest.raises(ValueError, match=f"^{wrong}$"):
        Limits(**values)


async def test_what_cannot_be_called_at_once_is_refused():
    async def later(*_):
        pass

    class Later:
        async def __call__(self, view):
            pass

    with pytest.raises(TypeError, match="acked is a coroutine function"):
        Callbacks(acked=later)
    with pytest.raises(TypeError, match="ended is a coroutine function"):
        Callbacks(ended=Later())
    with pytest.raises(TypeError, match="group_of is a coroutine function"):
        Cache(later)
    with pytest.raises(ValueError, match="drain is -1; it must be 0 or more"):
        async with serve(Cache(), "127.0.0.1:0", drain=-1):
            pass


@pytest.mark.parametrize("tls", [None, TlsFiles("tls.crt", "tls.key")])
async def test_strangers_are_not_refused_where_nobody_has_a_certificate(tls):
    with pytest.raises(ValueError, match="refuse_stranger needs tls with a client_ca"):
        async with serve(Cache(), "127.0.0.1:0", tls=tls, refusal=refuse_stranger):
            pass
