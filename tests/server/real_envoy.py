"""A real Envoy, an upstream and users; no test."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
from pathlib import Path

import structlog

from controlplane.server import from_yaml
from tests.waiting import PATIENCE

ENVOY = next(Path(sys.prefix).glob("lib/python*/site-packages/envoy/_bin/envoy"), None)
ROOT = Path(__file__).parents[2]

_spec = importlib.util.spec_from_file_location("embedding_example", ROOT / "docs" / "embedding_example.py")
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


def world(name, port, front):
    """The resources of the example."""
    return from_yaml(example.WORLD.substitute(name=name, port=port, front=front))


async def upstream(name):
    """Start a server that answers with its name; return it and its port."""

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                head = f"HTTP/1.1 200 OK\r\nx-name: {name}\r\ncontent-length: 0\r\n\r\n"
                writer.write(head.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def listening(*ports):
    """Wait until Envoy takes connections: its workers begin to after it has acknowledged a listener."""

    async def takes(port):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return (await asyncio.open_connection("127.0.0.1", port))[1].close()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(takes, ports))


async def user(port, seen):
    """Send requests over one connection; note the status and who answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert "content-length: 0" in head, head
        name = head.partition("x-name: ")[2].partition("\r\n")[0]
        seen.append((head.split(" ")[1], name))
        await asyncio.sleep(0.002)


def acknowledged(served):
    """Return what tells the names that the only client has acknowledged of a type."""

    def names(type_url):
        views = served.xds.views()
        of = views[0].of(type_url) if views else None
        return set(of.acked) if of else set()

    return names


@contextlib.asynccontextmanager
async def envoy(folder, bootstrap, name="envoy"):
    """Run an Envoy with a bootstrap (a dict)."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(bootstrap))
    arguments = [
        "-c",
        str(path),
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "-l",
        "off",
        "--drain-time-s",
        "1",
    ]
    process = await asyncio.create_subprocess_exec(str(ENVOY), *arguments)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def control_plane(blue, green, *fronts):
    """Serve one Envoy per front port, with the upstream blue, and green after a line of input."""
    sys.path.insert(0, str(ROOT))
    from controlplane.server import Cache, Callbacks, serve

    def tell(*words):
        sys.stdout.write(" ".join(map(str, words)) + "\n")
        sys.stdout.flush()

    def point(name, port):
        for number, front in enumerate(fronts, 1):
            cache.replace(f"edge-{number}", world(name, port, front))

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    cache = Cache()
    point("blue", blue)
    async with serve(
        cache, "127.0.0.1:0", Callbacks(connected=lambda view: tell("connected", view.node.id))
    ) as it:
        tell("port", it.port)
        await asyncio.to_thread(sys.stdin.readline)
        point("green", green)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(control_plane(*map(int, sys.argv[1:])))
