"""Chains of certificates: what a client can follow, in real handshakes by one that trusts the root only."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import grpc
import pytest

from controlplane._pb.cluster_pb2 import Cluster
from controlplane.server import Cache, TlsFiles, serve
from controlplane.server.certificates import Certificates
from controlplane.server.tls import TlsError
from controlplane.server.troubles import Troubles
from controlplane.xds.type_urls import CLUSTER

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
ENDS = NOW + 100 * DAY
DO = "put the server's own certificate first, then the one that signed it, and so on, and no others"


@pytest.fixture
def site(authority, tmp_path):
    """A root, an intermediate of it, and a server's certificate of that; ``put`` writes a chain."""
    root = authority("root")
    middle = root.below("middle", NOW - DAY, ENDS)
    leaf, key = middle.dated("leaf", NOW - DAY, ENDS, "DNS:localhost", "IP:127.0.0.1")
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    shutil.copy(key, files.key)

    def put(*certs):
        files.path("certificate").write_bytes(b"".join(cert.read_bytes() for cert in certs))

    put(leaf, middle.cert)
    return SimpleNamespace(root=root, middle=middle, leaf=leaf, files=files, put=put)


@pytest.fixture
async def port(site, kit):
    """A server with these files; ``greet`` returns whether a new client is served."""
    cache = Cache(lambda _node: "all")
    cache.set("all", CLUSTER, "a", Cluster(name="a"))
    credentials = grpc.ssl_channel_credentials(site.root.cert.read_bytes())
    options = (("grpc.use_local_subchannel_pool", 1),)

    async with serve(cache, "127.0.0.1:0", tls=site.files, drain=0) as served:

        async def greet():
            at = f"localhost:{served.port}"
            async with grpc.aio.secure_channel(at, credentials, options) as channel:
                call = kit.Call(channel, f"/{kit.ADS}/StreamAggregatedResources")
                try:
                    await call.ask(CLUSTER)
                    return bool((await call.hear()).resources)
                except grpc.aio.AioRpcError:
                    return False
                except AssertionError:
                    return await call.call.code() is grpc.StatusCode.OK

        yield SimpleNamespace(greet=greet, problems=served.troubles.current)


def written(moment):
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def renewed_but_expired(site):
    old = site.root.below("old", NOW - 9 * DAY, NOW - DAY)
    leaf, key = old.dated("next", NOW - DAY, ENDS, "DNS:localhost")
    shutil.copy(key, site.files.key)
    site.put(leaf, old.cert)
    return f"CN=old, certificate 2 of its chain, expired at {written(NOW - DAY)}"


def of_another(site):
    site.put(site.leaf, site.root.below("other", NOW - DAY, ENDS).cert)
    return unfit("2, CN=other,", "1, CN=leaf, which names CN=middle")


def with_another_key(site):
    site.put(site.leaf, site.root.below("again", NOW - DAY, ENDS, called="middle").cert)
    return unfit("2, CN=middle,", "1, CN=leaf, which names CN=middle")


def of_another_root(site):
    stranger = site.root.dated("stranger", NOW - DAY, ENDS, authority=True)[0]
    site.put(site.leaf, site.middle.cert, stranger)
    return unfit("3, CN=stranger,", "2, CN=middle, which names CN=root")


def unfit(this, before):
    return (
        f"its chain does not fit together: certificate {this} is not the issuer of certificate {before} "
        f"(unable to get local issuer certificate); {DO}"
    )


@pytest.mark.parametrize("put", [renewed_but_expired, of_another, with_another_key, of_another_root])
async def test_a_chain_that_leads_nowhere_replaces_no_good_one(site, port, put):
    key = site.files.path("key").read_bytes()
    assert await port.greet()

    why = put(site)

    assert await port.greet()
    (shown,) = port.problems()
    assert shown.startswith("certificate of 127.0.0.1:0: refused ")
    assert shown.endswith(f": the one in use stays: {site.files.certificate}: {why}")
    site.files.path("key").write_bytes(key)
    site.put(site.leaf, site.middle.cert)
    assert await port.greet()
    assert port.problems() == ()


async def test_a_chain_that_has_become_shorter_is_told_until_it_is_whole_again(site, port):
    assert await port.greet()
    text = (
        f"certificate of 127.0.0.1:0: {site.files.certificate}: the chain ends at its issuer CN=middle, "
        "which is not in the file; the one before had it: clients that trust only what is above it do not "
        "get in; put the whole chain into the file (fullchain.pem, not cert.pem)"
    )

    for _renewal in range(2):
        site.put(site.leaf)
        assert not await port.greet()
        assert port.problems() == (text,)

    site.put(site.leaf, site.middle.cert)
    assert await port.greet()
    assert port.problems() == ()


async def test_the_root_may_be_there_or_not_and_the_order_is_free(site, port):
    for chain in (
        (site.leaf, site.middle.cert, site.root.cert),
        (site.leaf, site.root.cert, site.middle.cert, site.leaf),
        (site.leaf, site.root.cert, site.middle.cert),
        (site.leaf, site.middle.cert, site.leaf),
        (site.leaf, site.middle.cert),
    ):
        site.put(*chain)
        assert await port.greet()
        assert port.problems() == ()


def test_a_server_may_start_with_its_own_certificate_alone_but_not_with_a_chain_that_does_not_fit(site):
    troubles = Troubles()
    site.put(site.leaf)
    Certificates(site.files, "--xds", troubles)
    assert troubles.current() == ()

    why = of_another(site)
    with pytest.raises(TlsError) as error:
        Certificates(site.files, "--xds", troubles)
    assert str(error.value) == f"{site.files.certificate}: {why}"


def test_the_first_end_of_a_chain_counts(site):
    ends = NOW + timedelta(hours=2)
    brief = site.root.below("brief", NOW - 9 * DAY, ends)
    leaf, key = brief.dated("next", NOW - DAY, ENDS, "DNS:localhost")
    shutil.copy(key, site.files.key)
    site.put(leaf, brief.cert)

    port = Certificates(site.files, "--xds", Troubles())

    assert port.ends() == {"certificate": ends}
    where = f"certificate of --xds: {site.files.certificate}: CN=brief, certificate 2 of its chain,"
    assert port.problems() == (f"{where} expires at {written(ends)}",)
