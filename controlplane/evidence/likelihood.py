"""The formulas: likelihood ratios of one block, mixtures of evidence, evidence of no harm.

All evidence is kept as natural logarithms.
Source: docs/decision-rule.md, "Rollback evidence" and "Promotion evidence".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, fsum, lgamma, log, log1p
from operator import add

FLOOR = -2.0  # the least that one cell may say against promotion: one burst does not end a step
# Good is taken to be this part of the tolerated rise above the baseline: a baseline that was measured a
# little too low would otherwise stop a good release. What is excluded stays the same.
TILT = 0.15
FIRST_MASS, LATER_MASS = 0.7, 0.3  # of a process: begun at the start, begun at one of the later minutes


def log_mean_exp(values: Sequence[float]) -> float:
    """Return the logarithm of the mean of ``exp(values)``, without overflow."""
    top = max(values)
    if min(values) == top:
        return top
    return top + log(fsum([exp(v - top) for v in values]) / len(values))


def log_mixture(parts: Iterable[tuple[float, float]]) -> float:
    """Return the logarithm of the weighted sum of exponentials of ``(weight, value)``; weights sum to 1."""
    known = tuple(parts)
    top = max([value for _, value in known])
    return top + log(fsum([weight * exp(value - top) for weight, value in known]))


def restart_mass(after: int, until: int) -> float:
    """Return the mass of processes that begin in the minutes ``after + 1`` to ``until`` of evidence.

    Over all minutes the masses sum to LATER_MASS, so late faults are found at a bounded price.
    """
    return LATER_MASS * (1 / (after + 1) - 1 / (until + 1))


def advance(process: Sequence[float], mass: float, gain: Sequence[float]) -> tuple[float, ...]:
    """Return the process after new beginnings with ``mass`` and then one interval's ``gain``."""
    if mass > 0:
        new = log(mass)
        process = [max(s, new) + log1p(exp(-abs(s - new))) for s in process]
    return tuple(map(add, process, gain))


def binomial(k: float, total: float, ratio: float, null: float, alternative: float) -> float:
    """Return log of the likelihood ratio of ``k`` of ``total`` events falling on the canary.

    Args:
        k: Events of the canary.
        total: Events of both versions.
        ratio: Canary requests / baseline requests.
        null: Rate of the canary / rate of the baseline that is tolerated.
        alternative: The same, of the fault that is looked for.
    """
    # With odds o = rate ratio x request ratio, pi = o/(1+o); the difference of log(1-pi) is common to both.
    common = log1p(null * ratio) - log1p(alternative * ratio)
    return k * log(alternative / null) + total * common


def _clustered(k: int, total: int, clusters: float, odds: float) -> float:
    """Return log of the beta-binomial probability of ``k`` of ``total``, up to what no odds change."""
    pi = odds / (1 + odds)
    a, b = clusters * pi, clusters * (1 - pi)
    return (lgamma(k + a) - lgamma(a) if k else 0.0) + (
        lgamma(total - k + b) - lgamma(b) if total > k else 0.0
    )


def cautious(
    k: int, requests: tuple[int, int], total: int, clusters: float, grid: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return the binomial evidence and the lesser of it and the clustered one, for each alternative.

    Clustered, a burst of one client counts about once; binomial, a dense outage of both stays no evidence.

    Args:
        k: Errors of the canary.
        requests: Requests of the canary and of the baseline, both above 0.
        total: Errors of both.
        clusters: Expected clusters in the block.
        grid: Tolerated rate ratio, then the alternatives.
    """
    null, *alternatives = grid
    ratio = requests[0] / requests[1]
    plain = [binomial(k, total, ratio, null, rho) for rho in alternatives]
    base = _clustered(k, total, clusters, null * ratio)
    least = [
        min(value, _clustered(k, total, clusters, rho * ratio) - base)
        for rho, value in zip(alternatives, plain, strict=True)
    ]
    if k <= total * null * ratio / (1 + null * ratio):
        least = [min(value, 0.0) for value in least]
    return plain, least


def poisson_tail(mean: float, above: float) -> float:
    """Return the probability that a Poisson count is greater than ``above``; taken as 1 for a mean > 100."""
    if mean > 100 or above < 0:
        return 1.0
    if above > 250:
        return 0.0
    terms = [exp(-mean)]
    for i in range(1, int(above) + 1):
        terms.append(terms[-1] * mean / i)
    return max(0.0, 1.0 - fsum(terms))


def no_harm(k: float, requests: float, rate: float, tolerated: float) -> float:
    """Return evidence that events are not as frequent as ``rate + tolerated``; never below FLOOR.

    It falls with every further event. The last term pays for the floor.
    """
    expected, excess = rate + TILT * tolerated, (1 - TILT) * tolerated
    step = log1p(excess / expected)
    value = excess * requests - k * step
    deep = poisson_tail((rate + tolerated) * requests, (excess * requests - FLOOR) / step)
    return max(FLOOR, value) - log1p(exp(FLOOR) * deep)


def no_harm_plain(k: int, requests: int, rate: float, tolerated: float) -> float:
    """Return the evidence of :func:`no_harm` without its floor: every event of a burst counts."""
    expected, excess = rate + TILT * tolerated, (1 - TILT) * tolerated
    return excess * requests - k * log1p(excess / expected)


def no_harm_rate(rate: float, seen: float, tolerated: float) -> float:
    """Return the evidence of :func:`no_harm` to be expected per request, at a true rate ``seen``."""
    excess = (1 - TILT) * tolerated
    return excess - seen * log1p(excess / (rate + TILT * tolerated))
