"""The state machines of `tests/xds` as fuzz targets: a client, its server, and events in any order."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random
from types import ModuleType

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from bench.targets import VARIANTS, Target
from controlplane.xds.view import Variant

LIVES = 10  # of a client in one execution: Hypothesis begins each with the simplest one
STEPS = 40  # in each of them


def machines(folder: Path) -> dict[str, Target]:
    """Return a target for each variant, from the folder with the tests."""
    model, tests = _load(folder / "conftest.py"), _load(folder / "test_convergence.py")
    return {f"machine-{variant}": _machine(model, tests, variant) for variant in VARIANTS}


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"machines_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def _machine(model: ModuleType, tests: ModuleType, variant: Variant) -> Target:
    kind = tests.machine(model, variant)
    options = settings(
        max_examples=LIVES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # `pytest tests/xds/test_convergence.py` looks for the shortest example
        suppress_health_check=list(HealthCheck),
    )

    def target(random: Random) -> None:
        run_state_machine_as_test(seed(random.getrandbits(64))(kind), settings=options)

    return target
