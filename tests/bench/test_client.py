"""The load client against both servers: it speaks HTTP/2 well enough to be believed."""

from __future__ import annotations

import pytest

from bench.process import server
from bench.wire import EVERYTHING, NODE_BYTES, ROUTES, first_requests, node
from bench.xds import Side, fleet, once, sides
from controlplane.xds.messages import parse_node


@pytest.mark.parametrize("variant", ["delta", "sotw"])
def test_a_push_reaches_every_proxy_of_both_servers(variant):
    with sides(variant, 20, pinned=False) as (ours, echo, _):
        for side in (ours, echo):
            before = side.fleet.received
            round_ = once(side, 30_000)  # more than one frame

            assert side.fleet.received == before + 20
            assert round_.cpu > 0
            assert round_.last > 0
        sizes = [next(iter(side.fleet.connections.values())).size for side in (ours, echo)]
    assert abs(sizes[0] - sizes[1]) <= 4


def test_a_server_that_is_late_is_told_from_one_without_a_cpu():
    with (
        sides("delta", 20, pinned=False) as (ours, _, _),
        pytest.raises(
            TimeoutError, match=r"ended in 0 s; the server's event loop ran \d\.\d s and waited \d"
        ),
    ):
        once(ours, 1000, 0)


def test_flow_control_lets_a_long_talk_go_on():
    with server("turnout") as target:
        target.publish(1000)
        proxies = fleet(target, "delta")
        proxies.connect([first_requests("delta", node(1, NODE_BYTES), EVERYTHING)], answers=len(EVERYTHING))
        side = Side(target, proxies)
        for _ in range(20):
            once(side, 1_000_000)  # past the stream's 16 MiB window, and a megabyte each

        assert proxies.received == len(EVERYTHING) + 20
        assert proxies.ended == 0


def test_a_refused_stream_is_counted_and_not_waited_for():
    with server("turnout") as target:
        target.publish(1000)
        proxies = fleet(target, "delta")
        proxies.connect([first_requests("delta", b"", ROUTES)])  # no node: against the protocol

        assert (proxies.received, proxies.ended) == (0, 1)


def test_node_has_the_size_of_an_envoys_and_is_read():
    data = node(7, NODE_BYTES)

    assert len(data) == NODE_BYTES
    assert parse_node(data).id == "proxy-00007"
    assert parse_node(data).version == (1, 40, 0)
