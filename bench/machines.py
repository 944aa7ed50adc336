"""The state machines of `tests/xds` as fuzz targets: clients, their server, and events in any order."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from random import Random
from types import ModuleType

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from bench.targets import VARIANTS, Target

LIVES = 10  # in one execution: Hypothesis begins each with the simplest one
STEPS = 40  # in each of them


def machines(folder: Path) -> dict[str, Target]:
    """Return targets from the folder with the tests: one client, one like gRPC, and several of one server."""
    model, one = _load(folder / "conftest.py"), _load(folder / "test_convergence.py")
    found = {f"machine-{variant}": _machine(one.machine(model, variant)) for variant in VARIANTS}
    for variant in VARIANTS:
        found[f"caller-{variant}"] = _machine(one.machine(model, variant, one.caller(model)))
    many = _load(folder / "test_many_clients.py")
    libraries = [many.apart.library() for _ in range(1 + many.MOST)]
    for variants in (*((variant,) for variant in VARIANTS), VARIANTS):
        name = variants[0] if len(variants) == 1 else "both"
        found[f"clients-{name}"] = _machine(many.machine(model, libraries, variants))
    return found


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"machines_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def _machine(kind: type[RuleBasedStateMachine]) -> Target:
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
