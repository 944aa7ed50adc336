"""How late the loop is, with a loop that something keeps from running."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from controlplane.app import logs
from controlplane.app.lateness import Lateness
from tests.waiting import until

BLOCKED = 0.3


@pytest.fixture(autouse=True)
def lines():
    """What is logged, also where other tests have made the logs quiet."""
    logs.configure("warning")
    with capture_logs() as found:
        yield found
    logs.quiet()


def burn():
    end = time.thread_time() + BLOCKED
    while time.thread_time() < end:
        pass


async def measured(block, lines):
    """Return the first line and the gauge of a loop in which something blocks."""
    lateness, registry = Lateness(0.01, BLOCKED / 2), CollectorRegistry()
    registry.register(lateness)
    task = asyncio.create_task(lateness.run())
    await asyncio.sleep(0)
    block()
    await until(lambda: lines)
    task.cancel()
    (gauge,) = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    name, value = gauge.split()
    assert name == "turnout_loop_late_seconds"
    return lines[0], float(value)


@pytest.mark.parametrize(("block", "ran"), [(burn, BLOCKED), (lambda: time.sleep(BLOCKED), 0.0)])
async def test_a_loop_that_could_not_run_says_for_how_long_and_whether_it_was_busy(block, ran, lines):
    line, late = await measured(block, lines)

    assert (line["event"], line["log_level"]) == ("event loop was late", "warning")
    assert line["seconds"] >= BLOCKED - 0.1
    assert late > BLOCKED - 0.05
    if "ran" in line:  # not every system says so
        assert line["ran"] == pytest.approx(ran, abs=0.15)


async def test_a_loop_that_runs_says_nothing(lines):
    task = asyncio.create_task(Lateness(0.001, 60).run())
    await asyncio.sleep(0.05)
    task.cancel()

    assert lines == []
