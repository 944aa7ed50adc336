"""The formulas of ``likelihood`` for many blocks at once, for a tick has little time for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.likelihood import FLOOR, TILT

Floats = NDArray[np.float64]

_FLOOR = np.exp(FLOOR)
MOST = 250  # the greatest count whose probability is worked out
_SHIFT = 8  # from here on the series below is exact to 1e-12
_STEPS = np.arange(float(_SHIFT))


def lgamma(x: Floats) -> Floats:
    """Return the logarithm of the gamma function of positive numbers."""
    product = np.multiply.reduce(np.add.outer(_STEPS, x))
    y = x + _SHIFT
    inverse = 1 / (y * y)
    series = (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / y
    found: Floats = (y - 0.5) * np.log(y) - y + 0.5 * np.log(2 * np.pi) + series - np.log(product)
    return found


_COUNTS = np.arange(MOST + 1.0)
_LOG_FACTORIALS = lgamma(_COUNTS + 1)


def cautious(
    k: Floats, requests: tuple[Floats, Floats], total: Floats, clusters: Floats, rhos: Floats
) -> tuple[Floats, Floats]:
    """Return ``likelihood.cautious`` of each block: one line per block, one column per alternative.

    ``rhos`` are the same for all blocks, or have a line for each.
    """
    odds = rhos * (requests[0] / requests[1])[:, None]
    k, total, clusters = k[:, None], total[:, None], clusters[:, None]
    share = np.log1p(odds)
    plain = k * np.log(rhos[..., 1:] / rhos[..., :1]) + total * (share[:, :1] - share[:, 1:])
    pi = odds / (1 + odds)
    a, b = clusters * pi, clusters * (1 - pi)
    ours, none, theirs, nothing = lgamma(np.array((k + a, a, total - k + b, b)))
    clustered = ours - none + theirs - nothing
    least = np.minimum(plain, clustered[:, 1:] - clustered[:, :1])
    return plain, np.where(k <= total * pi[:, :1], np.minimum(least, 0.0), least)


def dues(requests: tuple[Floats, Floats], rhos: Floats, rise: Floats | float) -> Floats:
    """Return the logarithm of what ``cautious`` gains of each block on average if the canary's rate rises.

    An error more of the canary makes the evidence at most ``pi1 / pi0`` times as large; here their number is
    Poisson, with the mean ``rise * requests``. Lines and columns are those of ``cautious``.
    """
    odds = rhos * (requests[0] / requests[1])[:, None]
    pi = odds / (1 + odds)
    found: Floats = (rise * requests[0])[:, None] * (pi[:, 1:] / pi[:, :1] - 1)
    return found


def poisson_tail(mean: Floats, above: Floats) -> Floats:
    """Return ``likelihood.poisson_tail`` of each pair."""
    some = (mean <= 100) & (above >= 0) & (above <= MOST)
    found = np.where((mean > 100) | (above < 0), 1.0, 0.0)
    means, counts = mean[some], above[some]
    if len(means):
        found[some] = _tail(means, counts)
    return found


def _tail(mean: Floats, above: Floats) -> Floats:
    last = above.astype(int)
    most = int(max(last.tolist())) + 1
    m = mean[:, None]
    terms = np.exp(_COUNTS[:most] * np.log(np.maximum(m, 1e-300)) - m - _LOG_FACTORIALS[:most])
    # Added up one after the other, a line is the same beside any others.
    sums = np.add.accumulate(terms, axis=1)[np.arange(len(last)), last]
    found: Floats = np.maximum(0.0, 1.0 - sums)
    return found


def no_harm(
    k: Floats, requests: Floats, rate: Floats | float, tolerated: Floats | float
) -> tuple[Floats, Floats]:
    """Return ``likelihood.no_harm`` and ``likelihood.no_harm_plain`` of each block, in one line or more."""
    more, step = _excess(requests, rate, tolerated)
    plain: Floats = more - k * step
    deep = poisson_tail((rate + tolerated) * requests, (more - FLOOR) / step)
    return np.maximum(FLOOR, plain) - np.log1p(_FLOOR * deep), plain


def no_harm_plain(k: Floats, requests: Floats, rate: Floats | float, tolerated: Floats | float) -> Floats:
    """Return ``likelihood.no_harm_plain`` of each block."""
    more, step = _excess(requests, rate, tolerated)
    found: Floats = more - k * step
    return found


def _excess(
    requests: Floats, rate: Floats | float, tolerated: Floats | float
) -> tuple[Floats, Floats | float]:
    """Return what each block gains without an event, and what it loses by each."""
    excess = (1 - TILT) * tolerated
    return excess * requests, np.log1p(excess / (rate + TILT * tolerated))


def as_often(k: Floats, requests: tuple[Floats, Floats], total: Floats, excluded: Floats | float) -> Floats:
    """Return evidence of each block that the canary's events are not ``excluded`` times as frequent.

    As ``likelihood.binomial``, of the two versions' events in one interval; nothing without a baseline.
    """
    some = requests[1] > 0
    if not all(some.tolist()):
        among = np.zeros(k.shape)
        both, times = (requests[0][some], requests[1][some]), np.broadcast_to(excluded, k.shape)[..., some]
        among[..., some] = as_often(k[..., some], both, total[..., some], times)
        return among
    good, ratio = 1 + TILT * (excluded - 1), requests[0] / requests[1]
    common = np.log1p(excluded * ratio) - np.log1p(good * ratio)
    found: Floats = total * common - k * np.log(excluded / good)
    return found
