"""What proxies count of simulated requests: the same by every way."""

from dataclasses import replace

import numpy as np
import pytest

from controlplane.simulation.business import Business
from controlplane.simulation.faults import Fault
from controlplane.simulation.noise import FEW, binomial, poisson
from controlplane.simulation.traffic import CANARY, Model, Traffic

MODEL = Model(rps=100, history=0, segments={"beta": 0.2, "staff": 0.01})
SHARES = {"beta": ("beta", 1.0), "staff": ("staff", 0.2), "everyone": ("everyone", 0.02)}


@pytest.mark.parametrize("shares", [{}, SHARES, {"everyone": ("everyone", 0.98)}])
@pytest.mark.parametrize(
    "change", [{}, {"proxies": (0.05,) * 20}, {"rps": 1}, {"metrics": (Business("orders", 0.1),)}]
)
def test_the_tables_that_come_with_an_observation_are_those_of_its_cells(shares, change):
    traffic = Traffic(replace(MODEL, **change), (), seed=1)

    for _ in range(30):
        seen = traffic.step(shares)[0]

        worked_out = replace(seen)
        assert seen.tables == worked_out.tables
        assert list(seen.tables) == list(worked_out.tables)
        assert seen.cells == tuple(sorted(seen.cells, key=lambda item: item[0]))


def test_segments_that_count_as_everyone_are_one_cell_with_the_requests_of_all():
    apart, together = Traffic(MODEL, (), seed=1), Traffic(MODEL, (), seed=1)
    names = {name: (name, 0.5) for name in ("beta", "staff", "everyone")}

    for _ in range(20):
        cells = together.step({"everyone": names["everyone"]})[0].cells
        parts = apart.step(names)[0].cells

        assert {cell.segment for cell, _ in cells} == {"everyone"}
        for cell, tally in cells:
            among = [t for c, t in parts if (c.proxy, c.version) == (cell.proxy, cell.version)]
            assert np.array([t.row for t in among]).sum(axis=0).tolist() == list(tally.row)


def test_what_is_late_comes_though_nothing_is_wrong_any_more():
    usual, late = Traffic(MODEL, (), seed=1), Traffic(MODEL, Fault.several("silent"), seed=1)
    first, second = usual.step(SHARES)[0], usual.step(SHARES)[0]
    assert late.step(SHARES)[0].cells == ()

    well = late.beset(())
    found = [dict(well.step(SHARES)[0].cells) for _ in range(2)]

    assert sum(t.requests for t in found[0].values()) == sum(
        t.requests for seen in (first, second) for _, t in seen.cells
    )
    assert found[1] == dict(usual.step(SHARES)[0].cells)


def test_the_same_fault_elsewhere_hits_what_is_there():
    traffic = Traffic(MODEL, Fault.several("crash@segment=beta"), seed=1)
    traffic.step(SHARES)

    seen, harm = traffic.beset(Fault.several("crash@segment=everyone")).step(SHARES)

    failed = {c.segment for c, t in seen.cells if c.version == CANARY and t.errors == t.requests}
    assert "everyone" in failed
    assert "beta" not in failed
    assert harm.failed > 0


def test_shares_of_two_faults_may_come_to_more_than_all():
    seen, _ = Traffic(MODEL, Fault.several("crash+errors=10%"), seed=1).step(SHARES)

    assert all(t.errors == t.requests for c, t in seen.cells if c.version == CANARY)


@pytest.mark.parametrize("cells", [1, FEW, FEW + 1])
def test_few_numbers_are_drawn_as_many_are(cells):
    means = np.geomspace(0.001, 5000, cells)
    means[::3] = 0
    few, many = np.random.default_rng(1), np.random.default_rng(1)

    drawn = poisson(means, few)
    parts = binomial(drawn, 0.3, few)

    assert drawn.tolist() == many.poisson(means).tolist()
    assert parts.tolist() == many.binomial(drawn, 0.3).tolist()
    assert few.random() == many.random()
    assert drawn.dtype == parts.dtype == np.int64
