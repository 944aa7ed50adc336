"""The formulas of ``likelihood`` for many blocks at once, for a tick has little time for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.likelihood import FLOOR, TILT

Floats = NDArray[np.float64]

MOST = 250  # the greatest count whose probability is worked out
_SHIFT = 8  # from here on the series below is exact to 1e-12


def lgamma(x: Floats) -> Floats:
    """Return the logarithm of the gamma function of positive numbers."""
    product = np.ones_like(x)
    for step in range(_SHIFT):
        product *= x + step
    y = x + _SHIFT
    inverse = 1 / (y * y)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / y
    found: Floats = (y - 0.5) * np.log(y) - y + 0.5 * np.log(2 * np.pi) + series - np.log(product)
    return found


_LOG_FACTORIALS = lgamma(np.arange(1.0, MOST + 2.0))


def cautious(
    k: Floats, requests: tuple[Floats, Floats], total: Floats, clusters: Floats, grid: Sequence[float]
) -> tuple[Floats, Floats]:
    """Return ``likelihood.cautious`` of each block: one line per block, one column per alternative."""
    rhos = np.array(grid)
    ratio = (requests[0] / requests[1])[:, None]
    k, total, clusters = k[:, None], total[:, None], clusters[:, None]
    share = np.log1p(rhos * ratio)
    plain = k * np.log(rhos[1:] / rhos[0]) + total * (share[:, :1] - share[:, 1:])
    pi = rhos * ratio / (1 + rhos * ratio)
    a, b = clusters * pi, clusters * (1 - pi)
    ours, none, theirs, nothing = lgamma(np.stack((k + a, a, total - k + b, b)))
    clustered = ours - none + theirs - nothing
    least = np.minimum(plain, clustered[:, 1:] - clustered[:, :1])
    return plain, np.where(k <= total * pi[:, :1], np.minimum(least, 0.0), least)


def dues(requests: tuple[Floats, Floats], grid: Sequence[float], rise: float) -> Floats:
    """Return the logarithm of what ``cautious`` gains of each block on average if the canary's rate rises.

    An error more of the canary makes the evidence at most ``pi1 / pi0`` times as large; here their number is
    Poisson, with the mean ``rise * requests``. Lines and columns are those of ``cautious``.
    """
    odds = np.array(grid) * (requests[0] / requests[1])[:, None]
    pi = odds / (1 + odds)
    found: Floats = rise * requests[0][:, None] * (pi[:, 1:] / pi[:, :1] - 1)
    return found


def poisson_tail(mean: Floats, above: Floats) -> Floats:
    """Return ``likelihood.poisson_tail`` of each pair."""
    found = np.where((mean > 100) | (above < 0), 1.0, 0.0)
    some = (mean <= 100) & (above >= 0) & (above <= MOST)
    if some.any():
        most = np.floor(above[some])[:, None]
        counts = np.arange(int(most.max()) + 1, dtype=float)
        m = mean[some][:, None]
        terms = np.exp(counts * np.log(np.maximum(m, 1e-300)) - m - _LOG_FACTORIALS[: len(counts)])
        found[some] = np.maximum(0.0, 1.0 - np.where(counts <= most, terms, 0.0).sum(axis=1))
    return found


def no_harm(k: Floats, requests: Floats, rate: Floats, tolerated: Floats) -> Floats:
    """Return ``likelihood.no_harm`` of each block."""
    expected, excess = rate + TILT * tolerated, (1 - TILT) * tolerated
    step = np.log1p(excess / expected)
    deep = poisson_tail((rate + tolerated) * requests, (excess * requests - FLOOR) / step)
    found: Floats = np.maximum(FLOOR, excess * requests - k * step) - np.log1p(np.exp(FLOOR) * deep)
    return found


def no_harm_plain(k: Floats, requests: Floats, rate: Floats, tolerated: Floats) -> Floats:
    """Return ``likelihood.no_harm_plain`` of each block."""
    expected, excess = rate + TILT * tolerated, (1 - TILT) * tolerated
    found: Floats = excess * requests - k * np.log1p(excess / expected)
    return found


def as_often(k: Floats, requests: tuple[Floats, Floats], total: Floats, excluded: Floats) -> Floats:
    """Return evidence of each block that the canary's events are not ``excluded`` times as frequent.

    As ``likelihood.binomial``, of the two versions' events in one interval; nothing without a baseline.
    """
    good, found = 1 + TILT * (excluded - 1), np.zeros(len(k))
    some = requests[1] > 0
    ratio = requests[0][some] / requests[1][some]
    excluded, good = excluded[some], good[some]
    common = np.log1p(excluded * ratio) - np.log1p(good * ratio)
    found[some] = total[some] * common - k[some] * np.log(excluded / good)
    return found
