"""TLS of the port: who gets in, what is known of them, and certificates that change."""

from __future__ import annotations

import shutil

import grpc
import pytest

from controlplane.server.tls import TlsError, TlsFiles, refuse_stranger
from controlplane.xds.messages import Node
from controlplane.xds.type_urls import CLUSTER
from controlplane.xds.view import Peer

SPIFFE = "spiffe://fleet.example/edge/edge-1"


@pytest.fixture
def ca(authority):
    return authority("ours")


@pytest.fixture
def files(ca, tmp_path):
    """The server's files, which a test may replace; clients need a certificate of `ca`."""
    cert, key = ca.sign("localhost", "DNS:localhost", "IP:127.0.0.1")
    names = [tmp_path / name for name in ("tls.crt", "tls.key", "client-ca.crt")]
    for source, target in zip((cert, key, ca.cert), names, strict=True):
        shutil.copy(source, target)
    return TlsFiles(*names)


async def get(call, kit):
    """Return what a client is told, or the status with which it is sent away."""
    try:
        await call.ask(CLUSTER)
        return len((await call.hear()).resources)
    except grpc.aio.AioRpcError as error:
        return error.code()
    except AssertionError:
        return await call.call.code()


@pytest.fixture
async def world(serve, kit, files):
    world = await serve(tls=files)
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    return world


async def test_client_with_a_certificate_is_served_and_known(world, kit, ca):
    call = world.connect(credentials=ca.client("any", f"URI:{SPIFFE}", "DNS:edge-1.example"))

    assert await get(call, kit) == 1
    assert world.xds.views()[0].peer.identities == (SPIFFE, "edge-1.example")


async def test_common_name_counts_only_without_other_names(world, kit, ca):
    call = world.connect(credentials=ca.client("edge-7"))

    assert await get(call, kit) == 1
    assert world.xds.views()[0].peer.identities == ("edge-7",)


async def test_client_without_certificate_or_of_a_foreign_authority_does_not_get_in(
    world, kit, ca, authority
):
    nobody = grpc.ssl_channel_credentials(ca.cert.read_bytes())
    cert, key = authority("theirs").sign("edge-1", "DNS:edge-1")
    foreign = grpc.ssl_channel_credentials(ca.cert.read_bytes(), key.read_bytes(), cert.read_bytes())

    assert await get(world.connect(credentials=nobody), kit) is grpc.StatusCode.UNAVAILABLE
    assert await get(world.connect(credentials=foreign), kit) is grpc.StatusCode.UNAVAILABLE
    assert await get(world.connect(), kit) is grpc.StatusCode.UNAVAILABLE
    assert world.xds.views() == ()


async def test_without_client_ca_any_client_that_trusts_the_server_gets_in(serve, kit, files, ca):
    world = await serve(tls=TlsFiles(files.certificate, files.key))
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))

    trusting = grpc.ssl_channel_credentials(ca.cert.read_bytes())

    assert await get(world.connect(credentials=trusting), kit) == 1
    assert world.xds.views()[0].peer.identities == ()


async def test_new_certificate_and_authority_count_from_the_next_handshake(world, kit, ca, files, authority):
    new = authority("new")
    before = world.connect(credentials=ca.client("edge-1", "DNS:edge-1"))
    assert await get(before, kit) == 1

    cert, key = new.sign("localhost", "DNS:localhost", "IP:127.0.0.1")
    for source, target in ((cert, files.certificate), (key, files.key), (new.cert, files.client_ca)):
        shutil.copy(source, target)

    assert await get(world.connect(credentials=new.client("edge-2", "DNS:edge-2")), kit) == 1
    old = ca.client("edge-3", "DNS:edge-3")
    assert await get(world.connect(credentials=old), kit) is grpc.StatusCode.UNAVAILABLE
    # Whoever is in stays in, until the connection is of age.
    world.xds.publish("edge", kit.snapshot(2, CLUSTER, kit.resource("a", b"2", 2)))
    await before.ask(CLUSTER, response_nonce="1")
    assert [r.value for r in (await before.hear()).resources] == [b"2"]


async def test_broken_files_leave_the_last_good_certificate_in_use(world, kit, ca, files):
    good = files.key.read_bytes()
    _, other_key = ca.sign("other", "DNS:other")
    shutil.copy(other_key, files.key)
    assert await get(world.connect(credentials=ca.client("a", "DNS:a")), kit) == 1

    files.certificate.unlink()
    files.key.write_bytes(good)

    assert await get(world.connect(credentials=ca.client("b", "DNS:b")), kit) == 1


async def test_node_must_own_its_name_where_that_is_asked_for(serve, kit, files, ca):
    world = await serve(tls=files, refusal=refuse_stranger)
    world.xds.publish("edge", kit.snapshot(1, CLUSTER, kit.resource("a")))
    edge_1 = ca.client("any", f"URI:{SPIFFE}")

    assert await get(world.connect(node="edge-1", credentials=edge_1), kit) == 1
    thief = world.connect(node="edge-2", credentials=edge_1)
    await thief.ask(CLUSTER)
    status, text = await thief.end()
    assert status is grpc.StatusCode.PERMISSION_DENIED
    assert text == f"node id 'edge-2' is not a name of your certificate; it has: {SPIFFE}"
    assert world.xds.counts.closed == {"PERMISSION_DENIED": 1}


@pytest.mark.parametrize(
    ("identities", "owner"),
    [
        (("edge-1",), True),
        (("spiffe://fleet/ns/edge-1",), True),
        (("spiffe://fleet/edge-1/other",), False),
        (("https://fleet/edge-1",), False),
        (("edge-1.example",), False),
        ((), False),
    ],
)
def test_names_that_own_a_node(identities, owner):
    assert (refuse_stranger(Node("edge-1"), Peer("10.0.0.1:5", identities)) is None) is owner


def test_unusable_files_are_named_at_the_start(files, ca, tmp_path):
    with pytest.raises(TlsError, match=r"absent.key: no such file"):
        TlsFiles(files.certificate, tmp_path / "absent.key").stamp()
    _, other = ca.sign("other")
    with pytest.raises(TlsError, match=r"tls.crt: is not the certificate of this key"):
        TlsFiles(files.certificate, other).read()
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(TlsError, match=r"tls.crt: the certificate or its key is not PEM"):
        TlsFiles(files.certificate, tmp_path / "junk").read()
    with pytest.raises(TlsError, match=r"junk: it is not PEM"):
        TlsFiles(files.certificate, files.key, tmp_path / "junk").read()
