"""A listener with TLS: HTTP/2 and HTTP/1.1 by ALPN, and a certificate that is replaced while it serves."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest

from tests.waiting import PATIENCE

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]

REQUEST = b"GET / HTTP/1.1\r\nhost: shop.example.com\r\nx-user-id: a\r\nconnection: close\r\n\r\n"


def make_certificate(folder, name):
    """Write NAME.crt and NAME.key; return the certificate as a server sends it."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-out", folder / f"{name}.crt"]
    subprocess.run([*command, "-keyout", folder / f"{name}.key"], check=True, capture_output=True)
    return ssl.PEM_cert_to_DER_cert((folder / f"{name}.crt").read_text())


async def connect(port, *protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def presented(port):
    """Return the certificate that a new connection is shown."""
    _, writer = await connect(port, "http/1.1")
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_a_replaced_certificate_is_served_without_a_restart(site, tmp_path):
    made, live = tmp_path / "made", tmp_path / "live"
    made.mkdir(), live.mkdir()
    first, second = make_certificate(made, "first"), make_certificate(made, "second")
    for ending in ("crt", "key"):
        shutil.copy(made / f"first.{ending}", live / f"tls.{ending}")
    fleet, *rest = site.world("edge")
    port = site.ports["edge"]
    tls = f"{{certificate: {live}/tls.crt, key: {live}/tls.key}}"
    await site.serve()
    await site.apply(fleet.replace("kind: edge}", f"kind: edge, tls: {tls}}}"), *rest)
    await site.start(edge_1=site.bootstrap("edge-1"))

    before = await presented(port)
    reader, writer = await connect(port, "http/1.1")
    writer.write(REQUEST)
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    _, both = await connect(port, "h2", "http/1.1")
    chosen = both.get_extra_info("ssl_object").selected_alpn_protocol()
    for ending in ("key", "crt"):
        (made / f"second.{ending}").rename(live / f"tls.{ending}")

    async def replaced():
        return await presented(port) == second

    await site.until(replaced)
    await site.synced()
    for open_one in (writer, both):
        open_one.close()

    assert before == first
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert chosen == "h2"
    key = (live / "tls.key").read_bytes().split()[4]
    assert all(key not in path.read_bytes() for path in (site.folder / "data").iterdir())


async def test_a_certificate_that_is_not_there_is_named(site, tmp_path):
    fleet, *rest = site.world("edge")
    tls = f"{{certificate: {tmp_path}/tls.crt, key: {tmp_path}/tls.key}}"
    await site.serve()
    await site.apply(fleet.replace("kind: edge}", f"kind: edge, tls: {tls}}}"), *rest)
    await site.launch(edge_1=site.bootstrap("edge-1"))
    [problem] = (await site.refusing())["problems"]

    assert problem.startswith("Secret 'http': ")
    assert f"{tmp_path}/tls.crt" in problem
