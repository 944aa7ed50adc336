"""Slowness beside few requests of the baseline: what is compared may not choose how it is compared."""

from datetime import timedelta
from functools import cache
from itertools import product
from math import comb, exp

import numpy as np
import pytest
from world import CANARY, STABLE, START

from controlplane.evidence import Cell, Evidence, Learned, Limits, Observation, Stage, Tally, fold
from controlplane.evidence.account import begun
from controlplane.evidence.learned import learn
from controlplane.policy.latency import EDGES_MS

CANARYS, BASELINES = 6, 3  # requests of an interval
STAGE = Stage(CANARY, STABLE, Limits(errors_margin=None, latency_margin=0.1), timedelta(seconds=90), 1.0)


def past(edge, slow):
    """Return the requests past each edge when so many take between ``edge`` and the next, the others less."""
    return tuple(slow * (at <= EDGES_MS.index(edge)) for at in range(len(EDGES_MS)))


def seen(baseline, slower, canary=0, slow=None):
    """Return an interval of 5 s."""
    cells = ((Cell("p", "everyone", STABLE), Tally(baseline, 0, slower=slower)),)
    if canary:
        cells += ((Cell("p", "everyone", CANARY), Tally(canary, 0, slower=slow)),)
    ordered = tuple(sorted(cells, key=lambda cell: cell[0]))
    return Observation("shop", START, START + timedelta(seconds=5), ordered, fresh=("p",))


@cache
def known(usual, edge):
    """Return what 15 minutes taught: 10 with many requests, 5 with as few as are compared."""
    learned = Learned()
    for _ in range(120):
        learned = learn(learned, seen(100, past(edge, round(100 * usual))), STABLE)
    for number in range(60):
        slow = int((number + 1) * BASELINES * usual) - int(number * BASELINES * usual)
        learned = learn(learned, seen(BASELINES, past(edge, slow)), STABLE)
    return learned


def after(usual, k_c, k_b, edge=50):
    """Return the e-values of the edges by metric and edge, after one interval and before it."""
    learned = known(usual, edge)
    evidence = fold(Evidence(), learned, seen(BASELINES, past(edge, k_b), CANARYS, past(edge, k_c)), STAGE)
    found = {}
    for metric in ("latency", "latency tail"):
        for label, logs in evidence.accounts[metric].processes.items():
            found[metric, label] = np.array([exp(log) for log in logs])
    begin = np.array([exp(log) for log in begun(6, evidence.minute)])
    return found, begin


def chance(n, k, p):
    return comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize("usual", [0.08, 0.12, 0.5, 0.58, 0.62, 0.8])
def test_an_equal_canary_is_not_expected_to_look_slower(usual):
    """Over all that an interval of equal versions can bring, no edge gains on average."""
    mean: dict[tuple[str, str], np.ndarray] = {}
    for k_c, k_b in product(range(CANARYS + 1), range(BASELINES + 1)):
        found, begin = after(usual, k_c, k_b)
        weight = chance(CANARYS, k_c, usual) * chance(BASELINES, k_b, usual)
        for key, values in found.items():
            # An edge that was not looked at is where it was.
            mean[key] = mean.get(key, 0.0) + weight * (values / begin - 1)
    for key, gained in mean.items():
        assert (gained <= 1e-9).all(), (key, gained)
