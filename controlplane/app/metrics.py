"""The control plane's own figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from controlplane.app.overview import Overview, Sight
from controlplane.release import holding
from controlplane.server.certificates import Certificates


class Metrics:
    """A Prometheus collector over an `Overview`."""

    def __init__(self, plane: Overview) -> None:
        self._plane = plane

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: names are known only once the state is loaded."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield gauges for releases and proxies, counters for streams."""
        if not self._plane.ready:
            return
        yield from self._releases()
        sight = self._plane.sight()
        yield from _proxies(sight)
        problems = GaugeMetricFamily("turnout_problems", "Things that are wrong now; `turnout get problems`.")
        problems.add_metric([], len(sight.problems))
        yield problems
        alone = GaugeMetricFamily(
            "turnout_services_left_alone",
            "Services that proxies have from another store, until `turnout store init` adopts them.",
        )
        alone.add_metric([], sight.left_alone)
        yield alone
        failing = GaugeMetricFamily(
            "turnout_decisions_failing",
            "1 while nothing is decided, because the store cannot be written or the tick fails.",
        )
        failing.add_metric([], self._plane.failing)
        yield failing
        yield from self._plane.slowness.collect()
        yield from self._streams()

    def _releases(self) -> Iterator[Metric]:
        suspicion = GaugeMetricFamily(
            "turnout_release_suspicion",
            "Rollback e-value of a release; it is rolled back at 100.",
            labels=["release"],
        )
        phase = GaugeMetricFamily(
            "turnout_release_phase", "1 for the phase that a release is in.", labels=["release", "phase"]
        )
        for name, at, value in self._plane.suspicions():
            suspicion.add_metric([name], value)
            phase.add_metric([name, at], 1)
        yield from self._holds()
        unsafe = GaugeMetricFamily(
            "turnout_release_return_unsafe",
            "1 while the old version could not take the requests of a release in progress back as it should.",
            labels=["release"],
        )
        for name, alarm in self._plane.alarms():
            unsafe.add_metric([name], bool(alarm))
        yield from (suspicion, phase, unsafe)

    def _holds(self) -> Iterator[Metric]:
        """Yield what holds releases that have not ended: one series of each at most."""
        halts = GaugeMetricFamily(
            "turnout_release_halt",
            "1 while a person has paused a release, or a failure has frozen it.",
            labels=["release", "halt"],
        )
        held = GaugeMetricFamily(
            "turnout_release_held_seconds",
            "For how long a release has been held, by what now (code), and what is to be thought of it "
            "(kind): wrong, also by other codes before; person, whose turn it is; ordinary, which goes on "
            "by itself. Short pauses are left out.",
            labels=["release", "kind", "code"],
        )
        for state in self._plane.holds():
            kind = holding.kind(state.hold)
            since = max(state.wrong, state.held) if kind == "wrong" else state.held
            held.add_metric([state.name, kind, state.hold], since.total_seconds())
            if state.halt is not None:
                halts.add_metric([state.name, state.halt], 1)
        yield from (halts, held)

    def _streams(self) -> Iterator[Metric]:
        counts = self._plane.counts
        yield CounterMetricFamily("turnout_streams", "xDS streams that were opened.", value=counts.streams)
        yield CounterMetricFamily(
            "turnout_stream_nacks", "Responses that proxies refused.", value=counts.nacks
        )
        yield CounterMetricFamily(
            "turnout_stream_types_unserved",
            "Types that a stream asked for and that nobody serves.",
            value=counts.unserved,
        )
        refused = CounterMetricFamily(
            "turnout_refused",
            "Statistics, load reports, certificates and connections that were refused.",
            labels=["what"],
        )
        for what, number in sorted(self._plane.troubles.counts.items()):
            refused.add_metric([what.removesuffix(" of")], number)
        yield refused
        closed = CounterMetricFamily(
            "turnout_streams_closed", "Streams that this server ended with an error.", labels=["status"]
        )
        for status, number in sorted(counts.closed.items()):
            closed.add_metric([status], number)
        yield closed


def _proxies(sight: Sight) -> Iterator[Metric]:
    proxies = GaugeMetricFamily("turnout_proxies", "Connected proxies by state.", labels=["fleet", "state"])
    waiting = GaugeMetricFamily(
        "turnout_stream_waiting_seconds",
        "Age of the oldest response that a proxy of the fleet has not answered.",
        labels=["fleet"],
    )
    counts: dict[tuple[str, str], int] = {}
    oldest: dict[str, float] = {}
    for of, state, age in sight.proxies:
        counts[of, state] = counts.get((of, state), 0) + 1
        oldest[of] = max(oldest.get(of, 0.0), age)
    expiring = GaugeMetricFamily(
        "turnout_proxy_certificates_ending",
        "Connected proxies that came with a certificate that ends soon or has ended.",
        labels=["fleet"],
    )
    for (fleet, state), count in sorted(counts.items()):
        proxies.add_metric([fleet, state], count)
    for fleet, count in sorted(sight.expiring.items()):
        expiring.add_metric([fleet or "-"], count)
    for fleet, age in sorted(oldest.items()):
        waiting.add_metric([fleet], age)
    yield from (proxies, waiting, expiring)


class CertificateMetrics:
    """A Prometheus collector over the certificates of the ports."""

    def __init__(self, certificates: Sequence[Certificates]) -> None:
        self._certificates = certificates

    def collect(self) -> Iterator[Metric]:
        """Yield when each of them ends."""
        ends = GaugeMetricFamily(
            "turnout_certificate_expires_timestamp_seconds",
            "When the first certificate of a port's chain, or of its clients' authorities, ends.",
            labels=["port", "of"],
        )
        for port in self._certificates:
            for of, at in port.ends().items():
                ends.add_metric([port.whose.removeprefix("--"), of], at.timestamp())
        yield ends
