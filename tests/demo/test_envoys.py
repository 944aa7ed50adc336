from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.demo.envoys import ENVIRONMENT, Envoy, EnvoyError, envoy_version, find_envoy
from controlplane.demo.fault import Fault
from controlplane.demo.load import Load
from controlplane.demo.ports import free_ports
from controlplane.demo.sample import SampleProcess
from controlplane.demo.users import population
from tests.waiting import PATIENCE


def test_find_envoy_refuses_a_variable_that_names_no_program(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nothing"))

    with pytest.raises(EnvoyError, match="not an executable file"):
        find_envoy()


def test_find_envoy_says_how_to_get_one(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("controlplane.demo.envoys.importlib.util.find_spec", lambda name: None)

    with pytest.raises(EnvoyError, match=r"turnout\[demo\].*PATH.*TURNOUT_ENVOY"):
        find_envoy()


def test_find_envoy_prefers_the_variable(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, sys.executable)

    assert find_envoy() == Path(sys.executable).resolve()


@pytest.mark.envoy
async def test_envoy_that_cannot_start_shows_its_log(tmp_path):
    envoy = Envoy(find_envoy(), "bad", {"static_resources": {"nonsense": 1}}, tmp_path)

    await envoy.start()
    with pytest.raises(EnvoyError, match=r"(?s)bad: Envoy ended.*nonsense"):
        await envoy.ready(PATIENCE)

    assert not envoy.running


@pytest.mark.envoy
async def test_envoy_ends_with_the_process_that_started_it(tmp_path, edge, until):
    (listener,) = free_ports(1)
    (tmp_path / "edge.in").write_text(edge(listener, 1, 2))
    code = f"""
import asyncio
from pathlib import Path
from controlplane.demo.envoys import Envoy, find_envoy

async def main():
    folder = Path({str(tmp_path)!r})
    envoy = Envoy(find_envoy(), "edge-1", (folder / "edge.in").read_text(), folder)
    await envoy.start()
    await envoy.ready({PATIENCE})
    print(envoy.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    pid = int(await asyncio.wait_for(parent.stdout.readline(), PATIENCE))

    parent.send_signal(signal.SIGKILL)
    await parent.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    await until(gone)


@pytest.mark.envoy
async def test_load_over_two_envoys_explains_a_crash_and_nobody_moves(tmp_path, edge, until):
    listener, v1, v2 = free_ports(3)
    sample = SampleProcess((v1, v2))
    envoys = [Envoy(find_envoy(), f"edge-{n}", edge(listener, v1, v2, share=3000), tmp_path) for n in (1, 2)]
    load = Load(population(300), (listener,), 300)
    try:
        await asyncio.gather(sample.start(), *(envoy.start() for envoy in envoys))
        await asyncio.gather(*(envoy.ready(PATIENCE) for envoy in envoys))
        await load.start()
        await until(lambda: load.counts().canary > 50)
        healthy = load.counts()
        load.fault = Fault.parse("crash")
        await sample.inject(load.fault)
        await until(lambda: load.counts().failed > healthy.failed + 30)
        await load.stop()
        counts = load.counts()
        shares = [
            (await envoy.admin("/stats?filter=^http.http.downstream_rq_total$")).decode() for envoy in envoys
        ]
    finally:
        await load.stop()
        await asyncio.gather(*(envoy.stop() for envoy in envoys), sample.stop())

    assert counts.unexplained == 0, counts.examples
    assert load.moved_back() == 0
    assert counts.in_flight == 0
    assert sum(seen.requests for seen in counts.versions) == counts.requests
    each = [int(line.split()[-1]) for line in shares]
    assert sum(each) == counts.requests
    assert min(each) > counts.requests / 20
    assert not any(envoy.running for envoy in envoys)


@pytest.mark.envoy
async def test_envoy_version_is_read_from_the_binary():
    assert (await envoy_version(find_envoy())).count(".") == 2


async def test_version_of_something_else_is_an_error():
    with pytest.raises(EnvoyError, match="--version says"):
        await envoy_version(Path("/bin/echo"))


def test_launcher_leaves_nothing_behind_when_the_parent_is_gone():
    from controlplane.demo.envoys import _LAUNCHER

    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid() + 1), "/bin/echo"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 1
    assert "the demo has ended" in run.stderr
