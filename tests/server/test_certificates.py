"""Certificates in service: what may replace what, and what is told of their ends."""

from __future__ import annotations

import contextlib
import shutil
import ssl
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from controlplane._pb.cluster_pb2 import Cluster
from controlplane.server import Cache, TlsFiles, serve
from controlplane.server.certificates import Certificates
from controlplane.server.troubles import Troubles
from controlplane.server.x509 import certificates
from controlplane.xds.type_urls import CLUSTER
from controlplane.xds.validity import Validity

# An hour on, as the authorities are made in the meantime.
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
DAY = timedelta(days=1)
NAMES = ("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture
def ca(authority):
    return authority("ours")


@pytest.fixture
def files(tmp_path):
    return TlsFiles(*(str(tmp_path / name) for name in ("tls.crt", "tls.key", "client-ca.crt")))


@pytest.fixture
def put(ca, files):
    """Put files in the place of those in use: a certificate of that validity, or an authority."""

    def put(name, begins, ends, **options):
        cert, key = ca.dated(name, begins, ends, *NAMES, **options)
        if options:
            shutil.copy(cert, files.client_ca)
            return
        shutil.copy(cert, files.certificate)
        shutil.copy(key, files.key)

    put("good", NOW - DAY, NOW + 100 * DAY)
    shutil.copy(ca.cert, files.client_ca)
    return put


@pytest.fixture
def troubles():
    return Troubles()


def written(moment):
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@pytest.mark.parametrize(("begins", "why"), [(-9, "expired at"), (1, "is not valid before")])
async def test_a_certificate_that_is_not_valid_replaces_no_good_one(kit, ca, files, put, begins, why):
    cache = Cache(lambda _node: "all")
    cache.set("all", CLUSTER, "a", Cluster(name="a"))

    async def served_to(port):
        credentials = ca.client("edge-1", "DNS:edge-1")
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
            call = kit.Call(channel, f"/{kit.ADS}/StreamAggregatedResources")
            await call.ask(CLUSTER)
            return len((await call.hear()).resources)

    async with serve(cache, "127.0.0.1:0", tls=files, drain=0) as served:
        assert await served_to(served.port) == 1
        when = begins + 8 if begins < 0 else begins
        put("bad", NOW + begins * DAY, NOW + (begins + 8) * DAY)

        assert await served_to(served.port) == 1
        (shown,) = served.troubles.current()
        assert shown.startswith("certificate of 127.0.0.1:0: refused ")
        assert shown.endswith(
            f": the one in use stays: {files.certificate}: {why} {written(NOW + when * DAY)}"
        )

        put("better", NOW - DAY, NOW + 200 * DAY)
        assert await served_to(served.port) == 1
        assert served.troubles.current() == ()


@pytest.mark.parametrize("what", ["certificate", "client_ca"])
def test_of_both_files_only_one_that_is_valid_replaces_one_that_is(files, put, troubles, what):
    options = {"authority": True} if what == "client_ca" else {}
    port = Certificates(files, "--xds", troubles, clock=lambda: NOW)
    before = dict(port.ends())

    put("old", NOW - 9 * DAY, NOW - DAY, **options)
    port.renew()
    assert port.ends() == before
    (shown,) = troubles.current()
    assert shown.startswith("certificate of --xds: refused 2 times: the one in use stays: ")
    path = files.path(what)
    assert f": {path}: {'CN=old ' * bool(options)}expired at {written(NOW - DAY)}" in shown

    put("new", NOW - DAY, NOW + 60 * DAY, **options)
    assert troubles.current() == ()
    assert port.ends() == {**before, what: NOW + 60 * DAY}


@pytest.mark.usefixtures("unconfigured")
def test_one_that_is_not_valid_is_told_at_the_start_and_replaced_by_any(files, put, troubles, capsys):
    put("old", NOW - 9 * DAY, NOW - DAY)
    port = Certificates(files, "--xds", troubles, clock=lambda: NOW)

    expired = f"certificate of --xds: {files.certificate}: expired at {written(NOW - DAY)}"
    assert troubles.current() == port.problems() == (expired,)
    assert capsys.readouterr().out.count(expired) == 1
    put("early", NOW + DAY, NOW + 90 * DAY)
    (shown,) = troubles.current()
    assert shown.endswith(f"{files.certificate}: is not valid before {written(NOW + DAY)}")
    put("good", NOW - DAY, NOW + 90 * DAY)
    assert troubles.current() == ()


@pytest.mark.parametrize(
    ("what", "lives", "told"),
    [
        ("certificate", 365 * DAY, 7 * DAY),
        ("certificate", timedelta(hours=5), timedelta(hours=1)),
        ("client_ca", 3650 * DAY, 30 * DAY),
        ("client_ca", 100 * DAY, 20 * DAY),
    ],
)
def test_an_end_is_told_some_time_before(files, put, troubles, what, lives, told):
    now = NOW
    put("brief", NOW, NOW + lives, **({"authority": True} if what == "client_ca" else {}))
    port = Certificates(files, "--xds", troubles, clock=lambda: now)

    def shown():
        return [text for text in troubles.current() if str(files.path(what)) in text]

    now = NOW + lives - told
    assert shown() == []
    now += timedelta(seconds=1)
    path = files.path(what)
    start = f"certificate of --xds: {path}: {'CN=brief ' * (what == 'client_ca')}"
    (text,) = shown()
    assert text.partition(";")[0] == f"{start}expires at {written(NOW + lives)}"
    now = NOW + lives + timedelta(seconds=1)
    (text,) = shown()
    assert text.partition(";")[0] == f"{start}expired at {written(NOW + lives)}"
    assert port.ends()[what] == NOW + lives


def test_of_several_authorities_each_is_told_unless_one_of_its_name_lasts_longer(
    files, put, ca, troubles, tmp_path
):
    def bundle(*certs):
        (tmp_path / "client-ca.crt").write_bytes(b"".join(cert.read_bytes() for cert in certs))
        return [text.partition(";")[0] for text in troubles.current()]

    def made(name, begins, ends, called=""):
        return ca.dated(name, NOW + begins * DAY, NOW + ends * DAY, authority=True, called=called)[0]

    old, early, good = made("old", -9, -1), made("early", 1, 900), made("good", -9, 900)
    soon, renewed = made("soon", -9, 1), made("renewed", -1, 400, called="soon")
    at = f"certificate of --xds: {files.client_ca}:"
    port = Certificates(files, "--xds", troubles, clock=lambda: NOW)

    assert bundle(good, old, early) == [f"{at} CN=old expired at {written(NOW - DAY)}"]
    assert port.ends()["client_ca"] == NOW - DAY
    assert bundle(early, good, soon) == [f"{at} CN=soon expires at {written(NOW + DAY)}"]
    assert port.ends()["client_ca"] == NOW + DAY
    assert bundle(early, soon, good, renewed) == []
    assert port.ends()["client_ca"] == NOW + 400 * DAY


def test_new_files_that_cannot_be_used_are_shown_until_they_can(files, put, ca, troubles, tmp_path):
    port = Certificates(files, "--xds", troubles)
    good = (tmp_path / "tls.key").read_bytes()
    _, other_key = ca.sign("other", "DNS:other")

    shutil.copy(other_key, files.key)
    port.renew()
    (shown,) = troubles.current()
    (tmp_path / "tls.key").write_bytes(good)

    assert shown.startswith("certificate of --xds: refused 2 times: the one in use stays: ")
    assert shown.endswith("is not the certificate of this key")
    assert troubles.current() == ()


def test_what_the_port_cannot_take_is_not_in_use(files, put, troubles):
    def take():
        raise ssl.SSLError("no")

    port = Certificates(files, "--http", troubles, take)
    before = port.ends()

    put("new", NOW - DAY, NOW + 60 * DAY)

    assert "the one in use stays" in troubles.current()[0]
    assert port.ends() == before


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        ("1950-01-01", "1999-12-31"),
        ("2020-02-29", "2049-12-31"),
        ("2050-01-01", "2099-06-30"),
        ("2026-01-01", "9999-12-31"),
    ],
)
def test_validity_is_read_as_openssl_reads_it(ca, begins, ends):
    begins, ends = (
        datetime.fromisoformat(day).replace(tzinfo=UTC, hour=23, minute=59) for day in (begins, ends)
    )
    cert, _ = ca.dated("any", begins, ends, *NAMES)

    (read,) = certificates(cert.read_bytes())
    assert read.valid == Validity(begins, ends)
    assert (str(read.subject), str(read.issuer)) == ("CN=any", "CN=ours")
    other = ssl._ssl._test_decode_cert(str(cert))
    assert ssl.cert_time_to_seconds(other["notAfter"]) == ends.timestamp()


def test_a_file_of_several_has_several_and_text_around_them_counts_for_nothing(ca):
    first, _ = ca.dated("first", NOW, NOW + DAY)
    second, _ = ca.dated("second", NOW, NOW + 2 * DAY)

    read = certificates(b"first:\n" + first.read_bytes() + b"\r\n# second\n" + second.read_bytes())

    assert [each.valid.ends for each in read] == [NOW + DAY, NOW + 2 * DAY]
    assert [str(each.subject) for each in read] == ["CN=first", "CN=second"]


def test_what_is_no_certificate_is_told(ca):
    whole = ssl.PEM_cert_to_DER_cert(ca.cert.read_text())

    for pem in (b"", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ValueError, match=r"certificate"):
            certificates(pem)
    for at in range(240):  # names and dates are before that
        for changed in (
            whole[:at],
            *(whole[:at] + byte + whole[at + 1 :] for byte in (b"\xff", b"\0", b"\x80")),
        ):
            with contextlib.suppress(ValueError):  # and nothing else
                certificates(ssl.DER_cert_to_PEM_cert(changed).encode())
    with pytest.raises(ValueError, match="is cut off"):
        certificates(ssl.DER_cert_to_PEM_cert(whole[:100]).encode())
