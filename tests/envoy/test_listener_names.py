"""Listeners of a real Envoy that are renamed, or take the address that another one leaves: both stay open."""

from __future__ import annotations

import contextlib
import socket

import pytest

from controlplane.demo.ports import free_ports

pytestmark = [pytest.mark.envoy]

REQUEST = b"GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-user-id: u1\r\n\r\n"


def documents(site, **ports):
    """Return a fleet with listeners, by name, and its service."""
    fleet, service = site.world("edge")
    head = fleet.partition("listeners:")[0]
    lines = [f'  - {{name: {name}, address: "127.0.0.1:{port}", kind: edge}}' for name, port in ports.items()]
    return "\n".join((f"{head}listeners:", *lines, "")), service


async def served(site, **ports):
    """Wait until the proxy has these listeners, no other one, and answers at each."""

    async def there():
        text = (await site.envoys["edge-1"].admin("/listeners")).decode()
        found = {line.partition("::")[0]: int(line.rpartition(":")[2]) for line in text.splitlines()}
        states = [proxy["state"] for proxy in await site.get("/v1/proxies")]
        return (found, states) == (ports, ["synced"]) and (found, states)

    async def answered():
        with contextlib.suppress(OSError):
            for port in ports.values():
                assert await site.ask(port, [REQUEST]) == ["v1"]
            return True

    await site.until(there)
    await site.until(answered)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_addresses_stay_open_while_listeners_are_renamed_and_handed_over(site, variant):
    front, back, third = free_ports(3)
    await site.serve()
    await site.apply(*documents(site, http=front))
    await site.start(edge_1=site.bootstrap("edge-1", variant=variant))
    await served(site, http=front)

    for name in ("web", "alpha"):
        await site.apply(*documents(site, **{name: front}))
        await served(site, **{name: front})
    for names in ({"alpha": back, "zulu": front}, {"zulu": third, "alpha": front}):
        await site.apply(*documents(site, **names))
        await served(site, **names)


async def test_a_listener_whose_address_is_taken_is_a_problem_that_is_told(site):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        await site.serve()
        (front,) = free_ports(1)
        await site.apply(*documents(site, http=front))
        await site.start(edge_1=site.bootstrap("edge-1"))
        await site.apply(*documents(site, http=front, more=taken))

        problems = await site.until(site.problems)
        assert problems[0].startswith(
            "proxy edge-1 of fleet 'edge': has no listener 'more', which it refuses: "
        )
        await site.apply(*documents(site, http=front))

        async def nothing():
            return not await site.problems()

        await site.until(nothing)
    await served(site, http=front)
