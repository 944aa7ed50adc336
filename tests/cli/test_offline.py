"""Commands that need no server, and what the others say when there is none."""

import io
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

POLICIES = Path(__file__).parents[2] / "policies"
NOBODY = "http://127.0.0.1:1"
POLICY = "kind: Policy\nname: q\nsteps:\n  - {name: all, everyone: 120%}\nconditions: []\nguards: {}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "services"),
        ("get", "releases"),
        ("get", "release", "r"),
        ("get", "proxies"),
        ("get", "problems"),
        ("explain", "r"),
        ("explain", "--request", "GET http://shop.test/"),
        ("cohort", "r"),
        ("release", "shop", "v2", "--policy", "p"),
        ("advance", "r"),
        ("pause", "r"),
        ("promote", "r"),
        ("resume", "r"),
        ("rollback", "r"),
        ("switch", "shop", "v2"),
        ("apply", "-f", POLICIES),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_without_a_server_there_is_one_clear_line(turnout, arguments):
    said = turnout(*arguments, server=NOBODY)

    assert said.status == 1
    assert len(said.lines) == 1
    assert said.err.startswith(f"turnout: no server answers at {NOBODY}")
    assert "turnout serve" in said.err


def test_the_server_may_be_named_in_the_environment(turnout, monkeypatch):
    monkeypatch.setenv("TURNOUT_SERVER", "http://127.0.0.1:2")

    assert "127.0.0.1:2" in turnout("get", "services").err


@pytest.mark.parametrize("server", ["localhost", "ftp://x", "http://", "http://[::1", "::"])
def test_an_address_that_is_none_is_told(turnout, server):
    said = turnout("get", "services", server=server)

    assert said.status == 1
    assert len(said.lines) == 1


@pytest.mark.parametrize(
    "address", ["localhost:9090", "http://", "http://[::1", "http://localhost:99999", "http://local host"]
)
def test_a_prometheus_that_nobody_can_ask_is_refused(turnout, tmp_path, address):
    said = turnout("serve", "--data", tmp_path / "store", "--prometheus", address, "--client-ca", "none")

    assert said.status == 2
    assert said.err == f"turnout: --prometheus: {address!r} is not an address; write http://host:9090\n"
    assert not (tmp_path / "store").exists()


# --- validate, schema, bootstrap --------------------------------------------------------------------------


def test_the_examples_are_valid(turnout):
    said = turnout("validate", POLICIES)

    assert said.status == 0
    files = (path.read_text() for path in POLICIES.rglob("*.yaml"))
    kinds = Counter(document["kind"] for text in files for document in yaml.safe_load_all(text))
    assert said.out == f"ok: {', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))}\n"


def test_every_mistake_is_told_with_its_place(turnout, tmp_path):
    (tmp_path / "q.yaml").write_text(POLICY)
    (tmp_path / "r.yaml").write_text("kind: Relaese\n")
    (tmp_path / "s.yaml").symlink_to("nowhere")

    said = turnout("validate", tmp_path)

    assert said.status == 1
    places = [line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in said.out.splitlines()]
    assert places == ["q.yaml:1:1", "q.yaml:4:27", "q.yaml:6:1", "r.yaml:1:7", "s.yaml:1:1"]
    assert said.err == "turnout: 4 mistakes\n"


def test_a_dash_is_the_standard_input(turnout, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(POLICY.encode())))

    said = turnout("validate", "-")

    assert [line.split(": ")[0] for line in said.out.splitlines()] == ["-:1:1", "-:4:27", "-:6:1"]


@pytest.mark.parametrize("path", ["nowhere.yaml", "/dev/null"])
def test_a_path_that_is_no_file_is_told(turnout, path):
    said = turnout("validate", path)

    assert said.status == 1
    assert len(said.lines) == 1
    assert path in said.err


def test_the_schema_is_json(turnout):
    said = turnout("schema")

    assert said.status == 0
    assert set(json.loads(said.out)["$defs"]) >= {"Fleet", "Service", "Segment", "Policy", "Release"}


@pytest.mark.parametrize("more", [(), ("--sotw",), ("--tls", "c.pem", "k.pem", "ca.pem", "turnout.example")])
def test_a_bootstrap_is_yaml_for_one_proxy(turnout, more):
    said = turnout(
        "bootstrap", "--node", "edge-1", "--cluster", "edge", "--control-plane", "10.0.0.1:1", *more
    )

    built = yaml.safe_load(said.out)
    assert said.status == 0
    assert built["node"] == {"id": "edge-1", "cluster": "edge", "metadata": {"turnout.reports": 2}}
    assert built["dynamic_resources"]["ads_config"]["api_type"] == (
        "GRPC" if "--sotw" in more else "DELTA_GRPC"
    )


def test_a_bootstrap_has_listeners_that_need_no_control_plane(turnout):
    adopted = ("--adopt", "public=0.0.0.0:80", "--adopt", "partners=[::]:81")

    said = turnout(
        "bootstrap",
        "--node",
        "a",
        "--cluster",
        "b",
        "--admin",
        "off",
        *adopted,
        "--fallback",
        "0.0.0.0:82=x:80",
    )

    built = yaml.safe_load(said.out)
    assert [each["name"] for each in built["static_resources"]["listeners"]] == [
        "public",
        "partners",
        "turnout-fallback",
    ]
    assert "admin" not in built
    assert "lds_config" not in built["dynamic_resources"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--control-plane", "nonsense"),
        ("--flush", "soon"),
        ("--admin", "9901"),
        ("--adopt", "public"),
        ("--adopt", "public=elsewhere:80"),
        ("--fallback", "0.0.0.0:80"),
    ],
)
def test_a_bootstrap_that_cannot_work_is_refused(turnout, arguments):
    said = turnout("bootstrap", "--node", "edge-1", "--cluster", "edge", *arguments)

    assert said.status == 2
    assert len(said.lines) == 1
    assert arguments[1].rpartition("=")[2] in said.err


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", None])
def test_what_cannot_be_read_is_not_applied(turnout, tmp_path, content):
    if content is None:
        (tmp_path / "a.yaml").symlink_to("nowhere")
    else:
        (tmp_path / "a.yaml").write_bytes(content)

    said = turnout("apply", "-f", tmp_path, server=NOBODY)

    assert said.status == 1
    assert len(said.lines) == 1
    assert "a.yaml" in said.err


def test_an_empty_folder_is_nothing_to_apply(turnout, tmp_path):
    assert turnout("apply", "-f", tmp_path, server=NOBODY).err == "turnout: no YAML file there\n"


# --- serve that cannot start ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--log-level", "loud"), "debug, info, warning, error"),
        (("--policies", "nowhere"), "nowhere"),
        (("--interval", "soon"), "soon"),
        (("--interval", "0s"), "0s"),
        (("--xds", "18000"), "host:port"),
        (("--http", "localhost"), "host:port"),
        (("--http", "127.0.0.1:99999"), "host:port"),
        (("--http", "192.0.2.1:80"), "192.0.2.1:80"),
    ],
)
def test_serve_refuses_settings_that_cannot_work(turnout, tmp_path, arguments, word):
    at = {"--xds": "127.0.0.1:0", "--http": "127.0.0.1:0"} | dict([arguments])

    said = turnout("serve", "--data", tmp_path, *(part for pair in at.items() for part in pair))

    assert said.status != 0
    assert len(said.lines) == 1
    assert word in said.err
