"""A first look by every fuzz target; `make fuzz` takes the time for more."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from bench.fuzz import Run
from bench.machines import machines
from bench.mutate import mutate
from bench.targets import targets
from controlplane.app import logs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def known():
    logs.quiet()
    return targets(ROOT / "policies")


@pytest.mark.parametrize(
    "name", ["stream-delta", "stream-sotw", "request", "node", "export", "load-report", "yaml", "documents"]
)
def test_target_expects_what_it_meets(known, name):
    run = Run(name, known[name], 0)

    for number in range(40):
        run.once(number)


@pytest.mark.parametrize("name", ["machine-delta", "machine-sotw", "clients-both"])
def test_machine_finds_nothing_and_its_execution_can_be_repeated(name):
    run = Run(name, machines(ROOT / "tests" / "xds")[name], 0)

    run.once(0)
    run.once(0)


def test_every_target_is_looked_at_here(known):
    assert len(known) == 8


def test_an_execution_can_be_repeated():
    corpus = (b"name: a\nkind: Fleet\n", b"\x0a\x05hello")

    once, again = (mutate(Random("yaml 7"), corpus[0], corpus) for _ in range(2))

    assert once == again
    assert once != corpus[0]
