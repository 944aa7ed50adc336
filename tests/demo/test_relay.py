from __future__ import annotations

import asyncio

import pytest

from controlplane.demo.relay import Relay, stats_through
from tests.waiting import PATIENCE

BOOTSTRAP = {
    "stats_sinks": [
        {"name": "otlp", "typed_config": {"grpc_service": {"envoy_grpc": {"cluster_name": "cp"}}}}
    ],
    "static_resources": {
        "clusters": [
            {
                "name": "cp",
                "type": "STATIC",
                "connect_timeout": "2s",
                "load_assignment": {"cluster_name": "cp"},
            },
        ]
    },
}


async def test_relay_passes_bytes_until_it_is_cut():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    relay = Relay(server.sockets[0].getsockname()[1])
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)

    writer.write(b"one")
    assert await asyncio.wait_for(reader.readexactly(3), PATIENCE) == b"one"
    relay.cut()
    writer.write(b"two")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(3), 0.2)
    writer.close()
    await relay.stop()
    server.close()


async def test_relay_closes_the_connection_when_the_other_end_is_gone():
    relay = Relay(1)
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)

    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""

    writer.close()
    await relay.stop()


def test_statistics_get_a_cluster_of_their_own_and_ads_keeps_its_way():
    changed = stats_through(BOOTSTRAP, 4711)

    ads, stats = changed["static_resources"]["clusters"]
    assert ads == BOOTSTRAP["static_resources"]["clusters"][0]
    assert stats["connect_timeout"] == "2s"
    assert "4711" in str(stats["load_assignment"])
    assert (
        changed["stats_sinks"][0]["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"]
        == stats["name"]
    )
    assert len(BOOTSTRAP["static_resources"]["clusters"]) == 1


def test_bootstrap_without_statistics_is_an_error():
    with pytest.raises(ValueError, match="no statistics sink"):
        stats_through({"static_resources": {"clusters": []}}, 1)
