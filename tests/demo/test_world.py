from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from controlplane.demo.envoys import ENVIRONMENT, EnvoyError
from controlplane.demo.fault import Fault
from controlplane.demo.world import World
from tests.waiting import PATIENCE


def test_world_without_envoy_is_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, "/nonexistent")

    with pytest.raises(EnvoyError, match=ENVIRONMENT):
        World(tmp_path, Fault())


@pytest.mark.envoy
async def test_world_runs_brings_the_fault_with_its_phase_and_leaves_no_process(tmp_path, edge, until):
    world = World(tmp_path, Fault.parse("errors=50%@guarding"), rps=200)
    v1, v2 = world.endpoints
    bootstraps = {f"edge-{n}": yaml.safe_load(edge(world.listener, v1, v2, share=5000)) for n in (1, 2)}

    async with world:
        await world.start_proxies(bootstraps, control_plane=1, within=PATIENCE)
        await world.load.start()
        await world.enter("progressing")
        await until(lambda: world.load.counts().canary > 30)
        before, early = world.load.counts(), world.harmed()
        await world.enter("guarding")
        await world.enter("guarding")
        await until(lambda: world.load.counts().failed > before.failed + 5)
        late = world.harmed()
    counts = world.load.counts()

    assert before.failed < 5
    assert early < late <= datetime.now(UTC)
    assert counts.unexplained == 0, counts.examples
    assert world.moved_back(None) == world.moved_back(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert not any(envoy.running for envoy in world.envoys)
    with pytest.raises(OSError, match="ended with status"):
        await world.sample.served()


@pytest.mark.envoy
async def test_silent_fault_needs_a_bootstrap_with_statistics(tmp_path, edge, until):
    world = World(tmp_path, Fault.parse("silent"), rps=100)
    bootstrap = yaml.safe_load(edge(world.listener, *world.endpoints))

    async with world:
        with pytest.raises(ValueError, match="no statistics sink"):
            await world.start_proxies({"edge-1": bootstrap}, control_plane=1)
