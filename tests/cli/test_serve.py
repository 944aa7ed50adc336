"""`turnout serve` as a process: busy ports, a store in use, and an operator's walk through the commands."""

import json
import socket

import pytest

from controlplane.demo.ports import free_ports
from tests.documents import BRISK, FLEET, SERVICE
from tests.waiting import PATIENCE, until_blocking


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in (("fleet", FLEET), ("shop", SERVICE), ("quick", BRISK)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("busy", ["xds", "http"])
def test_a_busy_port_is_one_clear_line(kit, tmp_path, busy):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = dict(zip(("xds", "http"), free_ports(2), strict=True)) | {busy: port}
        options = [part for name, p in ports.items() for part in (f"--{name}", f"127.0.0.1:{p}")]
        process = kit.command("serve", "--data", tmp_path / "data", *options)
        said, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert said.count("\n") == 1
    assert said.startswith(f"turnout: cannot listen on 127.0.0.1:{port}: address already in use")
    assert f"--{busy}" in said


def test_a_second_server_on_the_same_data_is_refused_and_the_first_goes_on(kit, turnout, tmp_path):
    with kit.serving(tmp_path) as first:
        xds, http = free_ports(2)
        options = ("--xds", f"127.0.0.1:{xds}", "--http", f"127.0.0.1:{http}")
        process = kit.command("serve", "--data", tmp_path / "data", *options)
        said, _ = process.communicate(timeout=PATIENCE)

        assert process.returncode == 1
        assert said.count("\n") == 1
        assert "is in use by another process" in said
        assert turnout("get", "services", server=first.server).status == 0


def test_a_damaged_store_is_one_clear_line(kit, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "turnout.db").touch()

    process = kit.command(
        "serve", "--data", tmp_path / "data", "--xds", "127.0.0.1:0", "--http", "127.0.0.1:0"
    )
    said, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert said.count("\n") == 1
    assert "is empty; restore a copy" in said


def test_a_walk_through_the_commands(kit, turnout, tmp_path, documents):
    with kit.serving(tmp_path) as up:

        def ok(*arguments):
            said = turnout(*arguments, server=up.server)
            assert said.status == 0, said
            return said.out

        def no(*arguments):
            said = turnout(*arguments, server=up.server)
            assert (said.status, len(said.err.splitlines())) == (1, 1)
            return said.err

        def shown(*arguments):
            return json.loads(ok(*arguments, "-o", "json"))

        assert shown("get", "services") == shown("get", "releases") == shown("get", "proxies") == []
        assert "accepted Service shop" in ok("apply", "-f", documents)
        assert ok("apply", "-f", documents) == "nothing changed, generation 1\n"
        (documents / "bad.yaml").write_text("kind: Policy\nname: bad\n")
        said = turnout("apply", "-f", documents / "bad.yaml", server=up.server)
        assert said.status == 1
        assert "bad.yaml:1:1: " in said.out
        assert "last good documents stay" in said.err
        # A busy machine is something wrong, for a minute.
        until_blocking(lambda: "nothing is wrong" in ok("get", "problems"))

        assert "nothing to undo" in no("undo", "shop")
        assert "known: shop" in no("release", "shap", "v2", "-p", "quick")
        assert "known: none" in no("advance", "shop-v2")
        order = ok("release", "shop", "v2", "-p", "quick", "--actor", "ann", "-r", "new look")
        assert order == "release shop-v2: shop v1 -> v2, waiting\n"
        assert "let it end" in no("release", "shop", "v2", "-p", "quick")

        until_blocking(lambda: shown("get", "release", "shop-v2")["phase"] != "waiting")
        assert "progressing (paused), pause by " in ok("pause", "shop-v2")
        assert "progressing, resume by bob: go on" in ok("resume", "shop-v2", "--actor", "bob", "-r", "go on")
        assert "no step ahead waits for an approval" in no("approve", "shop-v2")
        assert "b1  edge" in ok("blackout", "add", "edge", "--for", "2h", "-r", "audit")
        assert "blackout (audit)" in no("advance", "shop-v2")
        assert shown("blackout", "list")[0]["because"] == "audit"
        assert "has from" in no("blackout", "add", "edge", "--from", "2036-12-23T18:00")
        assert ok("blackout", "remove", "b1") == ""
        ok("advance", "shop-v2")
        assert shown("get", "release", "shop-v2")["step"] == "all"
        for view in (("get", "services"), ("get", "releases"), ("get", "release", "shop-v2")):
            assert "shop-v2" in ok(*view)
        until_blocking(lambda: "no proxy is connected" in ok("explain", "shop-v2"))
        assert "bob" in ok("explain", "shop-v2")
        assert [r["actor"] for r in shown("explain", "shop-v2")["records"]][:1] == ["ann"]

        host = shown("get", "services")[0]["hosts"][0].replace("*", "a")
        told = ok("explain", "--request", f"GET http://{host}/ x-a: b")
        assert told.startswith("version ")
        assert "segment everyone" in told or "segment anonymous" in told
        assert turnout("explain", server=up.server).status == 2
        users = tmp_path / "users"
        users.write_text("ann\nbob\n")
        rows = ok("cohort", "shop-v2", "--users", users, "-o", "csv").splitlines()
        assert rows[0] == "user,bucket,segment,canary"
        assert [row.split(",")[0] for row in rows[1:]] == ["ann", "bob"]
        assert shown("cohort", "shop-v2")["salt"] == "shop-v2.1"
        assert "known: " in no("cohort", "shop-v2", "--step", "nowhere")

        assert (
            turnout("wait", "shop-v2", "--for", "guarding", "--timeout", "1s", server=up.server).status == 3
        )
        assert ok("wait", "shop-v2", "--for", "progressing") == "release shop-v2: progressing\n"
        assert "rolling_back, rolling back from all: rollback by " in ok("rollback", "shop-v2")
        assert "cannot advance" in no("advance", "shop-v2")
        assert ok("switch", "shop", "v2") == "service shop: stable is v2\n"
        assert "known: v1, v2" in no("switch", "shop", "v3")
        assert turnout("get", "services", "-o", "yaml", server=up.server).status == 2
        before = shown("get", "releases")

    with kit.serving(tmp_path) as up:
        assert shown("get", "services")[0]["stable"] == "v2"
        after = shown("get", "releases")
        assert [r["name"] for r in after] == [r["name"] for r in before]


def test_serve_follows_a_folder(kit, turnout, tmp_path, documents):
    with kit.serving(tmp_path, "--policies", documents) as up:
        until_blocking(lambda: "shop" in turnout("get", "services", server=up.server).out)
        (documents / "bad.yaml").write_text("kind: Policy\nname: bad\n")
        until_blocking(lambda: "bad.yaml:1:1" in turnout("get", "problems", server=up.server).out)
        (documents / "bad.yaml").unlink()
        until_blocking(lambda: "nothing is wrong" in turnout("get", "problems", server=up.server).out)


def test_events_are_followed_and_the_store_is_checked(kit, turnout, tmp_path, documents):
    with kit.serving(tmp_path) as up:
        assert turnout("apply", "-f", documents, server=up.server).status == 0
        follower = kit.command("events", "-f", "-n", "1", "-o", "json", "--server", up.server)
        first = json.loads(follower.stdout.readline())
        assert (first["kind"], first["number"]) == ("documents", 1)

        assert turnout("release", "shop", "v2", "-p", "quick", "--actor", "ann", server=up.server).status == 0
        followed = [json.loads(follower.stdout.readline()) for _ in range(2)]

        assert [(r["number"], r["action"], r["actor"]) for r in followed] == [
            (2, "order", "ann"),
            (3, "start", "turnout"),
        ]
        shown = turnout("events", "shop-v2", server=up.server)
        assert "#2 shop-v2 [waiting] order by ann: shop v1 -> v2, policy quick" in shown.out
        assert "documents" not in shown.out
        assert "no release is named 'x'" in turnout("events", "-f", "-n", "0", "x", server=up.server).err
        assert turnout("store", "verify", "--data", tmp_path / "data").out.startswith("ok: ")
        assert turnout("store", "backup", tmp_path / "copy.db", "--data", tmp_path / "data").status == 0
    # A follower does not keep the server from stopping, and says why it ends.
    assert follower.wait(timeout=PATIENCE) == 1
    assert "stopped" in follower.stdout.read()

    said = turnout("store", "restore", tmp_path / "copy.db", "--data", tmp_path / "data")
    assert "the old store is " in said.out
    assert turnout("store", "verify", "--data", tmp_path / "nothing").status == 1


def test_a_server_with_operators_knows_its_commands_by_their_token(
    kit, turnout, tmp_path, documents, monkeypatch
):
    file = tmp_path / "operators.yaml"
    ada = turnout("token", "ada", "--role", "admin", "--file", file)
    bob = turnout("token", "bob", "--role", "viewer", "--file", file)
    with kit.serving(tmp_path, "--operators", file) as running:
        monkeypatch.delenv("TURNOUT_TOKEN", raising=False)
        stranger = turnout("get", "services", server=running.server)
        monkeypatch.setenv("TURNOUT_TOKEN", bob.out.strip())
        looked = turnout("get", "services", server=running.server)
        viewer = turnout("apply", "-f", documents, server=running.server)
        monkeypatch.setenv("TURNOUT_TOKEN", ada.out.strip())
        applied = turnout("apply", "-f", documents, server=running.server)
        told = turnout("events", server=running.server)

    assert (stranger.status, stranger.err) == (1, "turnout: this server wants a token: set TURNOUT_TOKEN\n")
    assert looked.status == 0
    assert (viewer.status, viewer.err) == (1, "turnout: bob is viewer; that takes admin\n")
    assert applied.status == 0, applied.err
    assert "ada" in told.out


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--operators", "none.yaml"], "--operators: none.yaml: no such file or directory"),
        (["--http-cert", "a"], "TLS of --http needs both --http-cert and --http-key"),
        (
            ["--http", "0.0.0.0:0"],
            "--http 0.0.0.0:0: others could reach it; give --operators, --http-cert and",
        ),
        (["--http-cert", "none", "--http-key", "none"], "TLS of --http: none: no such file or directory"),
    ],
)
def test_what_would_let_in_anyone_is_one_clear_line(kit, tmp_path, options, wrong):
    options = ["--xds", "127.0.0.1:0", *([] if "--http" in options else ["--http", "127.0.0.1:0"]), *options]
    process = kit.command("serve", "--data", tmp_path / "data", *options)
    said, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode
    assert said.count("\n") == 1
    assert said.startswith(f"turnout: {wrong}")
