"""The control plane's own figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from controlplane.app.plane import Plane


class Metrics:
    """A Prometheus collector over a `Plane`."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: names are known only once the state is loaded."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield gauges for releases and proxies."""
        if not self._plane.ready:
            return
        suspicion = GaugeMetricFamily(
            "turnout_release_suspicion",
            "Rollback e-value of a release; it is rolled back at 100.",
            labels=["release"],
        )
        phase = GaugeMetricFamily(
            "turnout_release_phase", "1 for the phase that a release is in.", labels=["release", "phase"]
        )
        for release in self._plane.releases():
            suspicion.add_metric([release.name], release.suspicion)
            phase.add_metric([release.name, release.phase], 1)
        proxies = GaugeMetricFamily(
            "turnout_proxies", "Connected proxies by state.", labels=["fleet", "state"]
        )
        counts: dict[tuple[str, str], int] = {}
        for proxy in self._plane.proxies():
            counts[proxy.fleet, proxy.state] = counts.get((proxy.fleet, proxy.state), 0) + 1
        for (fleet, state), count in sorted(counts.items()):
            proxies.add_metric([fleet, state], count)
        problems = GaugeMetricFamily("turnout_problems", "Things that are wrong now; `turnout get problems`.")
        problems.add_metric([], len(self._plane.problems()))
        yield from (suspicion, phase, proxies, problems)
