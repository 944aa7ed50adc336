"""Counters of the canary's cluster, as Envoy counts them: a number that may not be exceeded, and retries.

Source: docs/decision-rule.md, "Counters of Envoy".
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from controlplane.evidence.account import ALPHA, Account, Interval, Stage
from controlplane.evidence.blocks import Blocks, total
from controlplane.evidence.ceiling import Ceiling, beside
from controlplane.evidence.figures import PHI
from controlplane.evidence.learned import Learned
from controlplane.evidence.observation import Observation, Tally
from controlplane.evidence.reading import total as whole
from controlplane.evidence.table import ERRORS, Rows, rows_of
from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import EVERYONE
from controlplane.policy.stats import RETRIES

COUNT, BASELINE, UNKNOWN = "count", "baseline", "unknown:"


def grown(observation: Observation, version: str, stat: str, proxies: AbstractSet[str] | None = None) -> int:
    """Return by how much a counter of a version grew on some proxies, or on all."""
    return sum(
        s.count
        for s in observation.stats
        if s.version == version and s.name == stat and (proxies is None or s.proxy in proxies)
    )


def unknown(observation: Observation) -> tuple[str, ...]:
    """Return the proxies that count requests but do not report counters of clusters, sorted."""
    proxies = {*observation.fresh, *observation.silent, *(cell.proxy for cell, _ in observation.cells)}
    return tuple(
        sorted(proxies - set(observation.reporting) - {cell.proxy for cell, _ in observation.issued})
    )


def _noted(account: Account, observation: Observation, *counts: tuple[str, float]) -> Account:
    """Return the account with the proxies that are unknown now and with counts added."""
    kept = {key: value for key, value in account.state.items() if not key.startswith(UNKNOWN)}
    for key, count in counts:
        kept[key] = (kept.get(key, (0.0,))[0] + count,)
    return account._replace(state=kept | {UNKNOWN + proxy: (1.0,) for proxy in unknown(observation)})


def _whole(interval: Interval, stat: str) -> Interval:
    """Return the interval with all requests of both versions in the place of those that are compared.

    A counter of a cluster knows neither users nor segments: what has no identity and what another release
    decided is in it too. Both are counted on the same proxies, those that report it and miss nothing.
    """
    seen, stage = interval.observation, interval.stage
    proxies = set(seen.reporting) - {proxy for proxy, _ in seen.partial}

    def of(version: str) -> Rows:
        tallies = (t for cell, t in seen.cells if cell.version == version and cell.proxy in proxies)
        requests = sum(tally.requests for tally in tallies)
        return rows_of([Tally(requests, min(grown(seen, version, stat, proxies), requests)).row])

    canary, baseline = of(stage.canary), of(stage.stable)
    pooled = Blocks.of((EVERYONE,), canary, baseline, np.array([False]), total(baseline))
    return replace(interval, blocks=pooled, learned=Learned())


def _blind(metric: str, account: Account) -> Verdict | None:
    """Return NOT_YET, naming them, if there are proxies of which nothing is known."""
    names = sorted(key.removeprefix(UNKNOWN) for key in account.state if key.startswith(UNKNOWN))
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    cause = f"not reported by {', '.join(names[:3])}{more}"
    reason = f"{metric}: {cause}, whose bootstrap is older; `turnout bootstrap` writes one that does"
    return Verdict(metric, EVERYONE, Outcome.NOT_YET, Said(reason), lacking=True, cause=cause, overdue=True)


@dataclass(frozen=True, slots=True)
class AtMost:
    """A counter of the canary's cluster may grow by ``most`` in a release, on all proxies together.

    It is a number, not a test: it fails with the first one beyond, unless the baseline's grows as much per
    request. Then both break it, and it holds.
    """

    name: str
    stat: str
    most: int

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        observation = interval.observation
        count = grown(observation, interval.stage.canary, self.stat)
        usual = grown(observation, interval.stage.stable, self.stat)
        account = _noted(account, observation, (COUNT, count), (BASELINE, usual))
        return account.counted(_whole(interval, self.stat), ERRORS)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        count = int(account.state.get(COUNT, (0.0,))[0])
        numbers = (("count", float(count)), ("at_most", float(self.most)))
        reason = f"{self.name}: {count} on the canary since the release began, at most {self.most} allowed"
        if count > self.most and self._alone(account, count):
            return Verdict(self.name, EVERYONE, Outcome.FAIL, Said(reason, numbers))
        if count > self.most and not stage.limits.emergency:
            usual = account.state.get(BASELINE, (0.0,))[0]
            reason += f"; the baseline's grew by {usual:.0f}, as much for its requests"
            return Verdict(self.name, EVERYONE, Outcome.NOT_YET, Said(reason, numbers), lacking=True)
        if blind := _blind(self.name, account):
            return blind
        if not sum(counts[0] for counts in account.step.values()):
            reason = "no canary requests in this step"
            return Verdict(self.name, EVERYONE, Outcome.NOT_YET, Said(reason, numbers), lacking=True)
        return Verdict(self.name, EVERYONE, Outcome.PASS, Said(reason, numbers, 0))

    def _alone(self, account: Account, count: int) -> bool:
        """Return whether the canary's counter grew more than the baseline's, request by request.

        What two versions that are alike differ by is left out as in a budget, at two standard deviations.
        """
        n_c, _, n_b, _ = whole(account.whole)
        usual = account.state.get(BASELINE, (0.0,))[0]
        if not n_b or not usual:
            return True
        expected = n_c * usual / n_b
        return count > expected + 2 * sqrt(PHI * expected * (1 + n_c / n_b))


@dataclass(frozen=True, slots=True)
class Retries:
    """Attempts beyond the first, as a share of the canary's requests: a limit, and a test like the others."""

    name: str
    allowed: float

    @property
    def _ceiling(self) -> Ceiling:
        return Ceiling(self.name, ERRORS, self.allowed, 1 / ALPHA, "were tried again")

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        account = self._ceiling.fold(account, _whole(interval, RETRIES))
        return _noted(account, interval.observation)

    def verdict(self, account: Account, learned: Learned, stage: Stage) -> Verdict:
        """Return what the account says."""
        found = self._ceiling.verdict(account, beside(account, ERRORS, stage), stage)
        return found if found.outcome is Outcome.FAIL else _blind(self.name, account) or found
