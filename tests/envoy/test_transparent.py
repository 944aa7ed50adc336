"""A sidecar in a network namespace, to which iptables leads every connection of the application's user."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import shutil
import socket
import subprocess
from contextlib import closing

import pytest

from controlplane.demo.sample import VERSION
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.envoy]

CLONE_NEWNET = 0x40000000
APPLICATION = 12_345  # its user id; the proxy runs as somebody else
SERVICE, STRANGER, DATABASE = "10.7.0.1", "10.7.0.2", "10.7.0.3"
PORT = 15_001
FLEET = f"""\
kind: Fleet
name: mesh
nodes: {{cluster: mesh}}
listeners:
  - {{name: outbound, address: "127.0.0.1:{PORT}", kind: transparent}}
"""


def run(command):
    """Run a command; return what it complained of, or ''."""
    done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


@pytest.fixture
def namespace():
    """Move the test, with all that it starts, into a network namespace of its own."""
    if missing := [tool for tool in ("ip", "iptables") if shutil.which(tool) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        os.close(before)
        pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    try:
        redirect = f"-m owner --uid-owner {APPLICATION} -j REDIRECT --to-ports {PORT}"
        commands = ["ip link set lo up", f"iptables -t nat -A OUTPUT -p tcp {redirect}"]
        commands += [f"ip address add {host}/32 dev lo" for host in (SERVICE, STRANGER, DATABASE)]
        if refused := "".join(map(run, commands)):
            pytest.skip(f"iptables does not work here: {refused.strip()}")
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


async def connect(host, port):
    """Connect as the application's user, as which the connection is known to iptables."""
    os.seteuid(APPLICATION)
    try:
        plain = socket.socket()
    finally:
        os.seteuid(0)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (host, port))
    return await asyncio.open_connection(sock=plain)


async def exchange(host, port, sent):
    """Send, and return all that comes until the other end closes."""
    reader, writer = await connect(host, port)
    with closing(writer):
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), PATIENCE)


def request(host, path="/", **headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}\r\n".encode()


async def version(user):
    """Return which version answers a user."""
    answer = await exchange(SERVICE, 80, request("shop.example.com", **{"x-user-id": user}))
    return re.search(rf"{VERSION}: (\w+)".encode(), answer)[1]


async def direct():
    """Return what the sidecar answers on its own port, to which nobody was led."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    with closing(writer):
        writer.write(request("elsewhere.example.com"))
        try:
            return await asyncio.wait_for(reader.read(), PATIENCE)
        except ConnectionResetError:
            return b""


async def mirror(reader, writer):
    """Answer with the head of the request."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + head)
    writer.close()


async def greet(reader, writer):
    """Speak first, as databases do, then send back one line."""
    writer.write(b"hello\n")
    writer.write(await reader.readline())
    writer.close()


async def test_known_hosts_are_split_and_everything_else_passes_through(namespace, site):
    _, service = site.world("mesh")
    await site.serve_here()
    await site.apply(FLEET, service)
    await site.start(mesh_1=site.bootstrap("mesh-1", "mesh"))
    await site.apply(*site.order("name: half, everyone: 50%"))
    await site.released(step="half", stage="verify")
    stranger = await asyncio.start_server(mirror, STRANGER, 80)
    database = await asyncio.start_server(greet, DATABASE, 5432)
    odd = request("elsewhere.example.com", "/a//b/%2F?c", under_score="1")

    async with stranger, database:
        users = [f"user-{number}" for number in range(20)]
        first = await asyncio.gather(*map(version, users))
        second = await asyncio.gather(*map(version, users))
        seen = await exchange(STRANGER, 80, odd)
        said = await exchange(DATABASE, 5432, b"\x00 select\n")
        alone = await direct()

    assert set(first) == {b"v1", b"v2"}
    assert first == second
    assert b"GET /a//b/%2F?c HTTP/1.1" in seen
    assert b"under_score: 1" in seen
    assert b"x-turnout" not in seen
    assert said == b"hello\n\x00 select\n"
    assert alone == b""
    passed = await site.stats("mesh-1", "passthrough.upstream_cx_total")
    assert passed == {"cluster.passthrough.upstream_cx_total": 2}
