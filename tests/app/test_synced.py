"""When a proxy is shown as synced: not before it has acknowledged what was decided last."""

import asyncio

import pytest

from controlplane._pb.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from controlplane._pb.node_pb2 import Node
from controlplane.resources.names import group_name
from controlplane.web.asked import Switch
from controlplane.xds.type_urls import CLUSTER, ROUTE
from controlplane.xds.view import Peer
from tests.waiting import until

ROUTES = group_name("shop", ["shop.example.com"])


class Client:
    """A delta client in memory, that answers what it was sent when it is told to."""

    end = None

    def __init__(self):
        self.peer, self.sent, self._requests = Peer("10.0.0.1:1"), [], asyncio.Queue()
        node = Node(id="edge-1", cluster="edge")
        node.user_agent_build_version.version.major_number = 1
        node.user_agent_build_version.version.minor_number = 40
        self.ask(CLUSTER, node=node.SerializeToString())
        self.ask(ROUTE, resource_names_subscribe=[ROUTES])

    def ask(self, type_url, **fields):
        self._requests.put_nowait(DeltaDiscoveryRequest(type_url=type_url, **fields).SerializeToString())

    def answer(self):
        while self.sent:
            response = self.sent.pop(0)
            self.ask(response.type_url, response_nonce=response.nonce)

    async def read(self):
        return await self._requests.get()

    def write(self, data, done):
        self.sent.append(DeltaDiscoveryResponse.FromString(data))
        done(None)

    def finish(self, status, text):
        raise AssertionError((status, text))


@pytest.fixture
async def client(site):
    """A client that has acknowledged all."""
    site.publisher.publish(await site.store.world())
    made = Client()
    task = asyncio.create_task(site.publisher.server.serve(made, "delta"))

    def synced():
        made.answer()
        return state(site) == "synced"

    await until(synced)
    yield made
    task.cancel()
    await asyncio.wait([task])


def state(site):
    return next((each for _, each, _ in site.plane.sight().proxies), "")


async def test_a_proxy_is_synced_once_it_has_acknowledged_what_was_decided_and_not_before(site, client):
    await site.plane.switch("shop", Switch(actor="ann", version="v2"))
    seen = {"stored": state(site)}
    site.publisher.publish(await site.store.world())
    seen["published"] = state(site)  # its stream has had no turn yet
    await until(lambda: client.sent)
    seen["sent"] = state(site)
    client.answer()
    await until(lambda: state(site) == "synced")

    assert seen == dict.fromkeys(("stored", "published", "sent"), "waiting")
    assert [proxy.state for proxy in await site.plane.proxies()] == ["synced"]
