"""What deciding costs: a tick over many releases, the intake of one push of statistics, and whole ticks.

A tick is what the loop does per interval without the store: fold what each release's service was seen to do,
judge, decide, learn. The intake is reading one export and counting what is new in it. Whole ticks
(`--fleet`) are those of many services and proxies, from what was pushed to what is stored.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import median

from bench.fleet import fleet
from controlplane._pb import otlp_pb2
from controlplane.app.tick import BESIDE
from controlplane.evidence.learned import Learned, learn_all
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.policy.documents import Policy
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.pinning import pin
from controlplane.release.seen import Moment, Propagation
from controlplane.release.state import Phase, ReleaseState, Stage
from controlplane.release.turn import Progress, together, turning
from controlplane.server.garbage import collect_seldom
from controlplane.sources.cursor import Cursor, delta
from controlplane.sources.envoy import parse_export

START = datetime(2026, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(seconds=5)
SEGMENTS = ("staff", "beta", "partner", "everyone")
POLICY = Policy.model_validate(
    {
        "kind": "Policy",
        "name": "p",
        "steps": [
            *(
                {"name": s, "segment": {"cookie": {"name": s, "present": True}}, "share": "50%"}
                for s in SEGMENTS[:-1]
            ),
            {"name": "ten", "everyone": "10%"},
            {"name": "all", "everyone": "100%"},
        ],
        "conditions": [{"success_rate": {"at_least": "99%"}}, {"latency": {"p99": "400ms"}}],
        "guard": {"hold_back": "2%"},
    }
)


def observation(rng: Random, number: int, proxies: int) -> Observation:
    """Return an interval of a service: every proxy, segment and version has requests and some errors."""
    cells = []
    for proxy in range(proxies):
        for segment in SEGMENTS:
            for version, share in (("v1", 90), ("v2", 10)):
                n = rng.randint(share, 2 * share)
                k = sum(rng.random() < 0.01 for _ in range(n))
                slower = tuple(n * (len(EDGES_MS) - i) // (3 * len(EDGES_MS)) for i in range(len(EDGES_MS)))
                cells.append((Cell(f"p{proxy}", segment, version), Tally(n, k, k, 0, slower)))
    begin = START + number * INTERVAL
    names = tuple(f"p{proxy}" for proxy in range(proxies))
    return Observation("shop", begin, begin + INTERVAL, tuple(sorted(cells, key=lambda c: c[0])), names)


def state(number: int) -> ReleaseState:
    """Return a release in progress, at its first step for everyone."""
    return ReleaseState(
        name=f"r{number}",
        attempt=1,
        service="shop",
        from_version="v1",
        to_version="v2",
        policy=pin(POLICY, None),  # type: ignore[arg-type]  # its segments are written in place
        salt="s",
        phase=Phase.PROGRESSING,
        step=3,
        stage=Stage.JUDGE,
        running=timedelta(minutes=5),
        canary_endpoints=("10.0.0.2:80",),
        created_at=START,
    )


def ticks(releases: int, proxies: int, rounds: int) -> list[float]:
    """Return the CPU milliseconds of each tick."""
    rng = Random(1)  # noqa: S311 (must be repeatable)
    seen = [observation(rng, number, proxies) for number in range(8)]
    names = tuple(f"p{proxy}" for proxy in range(proxies))
    progress = [Progress(state(number)) for number in range(releases)]
    learned = [Learned() for _ in range(releases)]
    found = []
    for number in range(rounds):
        moment = Moment(
            at=START + number * INTERVAL,
            elapsed=INTERVAL,
            observation=seen[number % len(seen)],
            propagation=Propagation(names, names),
            endpoints={"v1": ("10.0.0.1:80",), "v2": ("10.0.0.2:80",)},
            stable="v1",
        )
        began = time.process_time()
        for first in range(0, releases, BESIDE):
            beside = range(first, min(first + BESIDE, releases))
            took = together([turning(progress[at], learned[at], moment) for at in beside])
            pasts, count = [learned[at] for at in beside], len(beside)
            learned[first : first + count] = learn_all(
                pasts, [seen[number % len(seen)]] * count, ["v1"] * count, [False] * count
            )
            for at, done in zip(beside, took, strict=True):
                progress[at] = Progress(progress[at].state, done.after.watch, done.after.verdicts)
        found.append((time.process_time() - began) * 1000)
    return found


def export(number: int, size: int) -> bytes:
    """Return a push of about ``size`` bytes, as Envoy makes them."""
    request = otlp_pb2.ExportRequest()
    resource = request.resource_metrics.add()
    tag = resource.resource.attributes.add(key="service.instance.id")
    tag.value.string_value = "edge-1"
    metrics = resource.scope_metrics.add().metrics
    outcomes, latencies = metrics.add(name="turnout.rq"), metrics.add(name="turnout.t")
    for metric in (outcomes.sum, latencies.histogram):
        metric.aggregation_temporality = otlp_pb2.TEMPORALITY_CUMULATIVE
    at = 10**18 + number * 5 * 10**9
    series = 0
    while request.ByteSize() < size:
        places = {"service": f"shop-{series}", "segment": "everyone", "cluster": f"shop-{series}~v1"}
        for kind in ("ok", "bad"):
            point = outcomes.sum.data_points.add(
                as_int=number * 100, start_time_unix_nano=10**18, time_unix_nano=at
            )
            for key, value in (*places.items(), ("class", kind)):
                point.attributes.add(key=key).value.string_value = value
        bars = latencies.histogram.data_points.add(
            count=200 * number, start_time_unix_nano=10**18, time_unix_nano=at,
            explicit_bounds=[float(edge) for edge in EDGES_MS],
            bucket_counts=[200 * number, *[0] * len(EDGES_MS)],
        )  # fmt: skip
        for key, value in places.items():
            bars.attributes.add(key=key).value.string_value = value
        series += 1
    return request.SerializeToString()


def intakes(size: int, rounds: int) -> list[float]:
    """Return the CPU microseconds of reading and counting each push."""
    cursor: Cursor | None = None
    found = []
    for data in [export(number, size) for number in range(1, rounds + 1)]:
        began = time.process_time()
        added = delta(parse_export(data), cursor)
        found.append((time.process_time() - began) * 1e6)
        cursor = added.cursor if added else cursor
    return found


def main() -> None:
    """Print the first two, or the last, as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=20)
    parser.add_argument("--proxies", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--bytes", type=int, default=12_000)
    parser.add_argument("--fleet", type=int, default=0, metavar="PROXIES", help="whole ticks of so many")
    parser.add_argument("--services", type=int, default=1000, help="of the fleet")
    args = parser.parse_args()
    collect_seldom()  # as the server does; else one tick in ten has a pass of the collector in it, of 50 ms
    if args.fleet:
        print(json.dumps(fleet(args.services, args.fleet, args.releases)))  # noqa: T201
        return
    tick, intake = ticks(args.releases, args.proxies, args.rounds), intakes(args.bytes, 50)
    found = {
        "tick": {
            "releases": args.releases,
            "groups": args.proxies,
            "segments": len(SEGMENTS),
            "cpu_ms_median": round(median(tick), 1),
            "cpu_ms_most": round(max(tick), 1),
        },
        "intake": {
            "bytes": args.bytes,
            "cpu_us_median": round(median(intake)),
            "cpu_us_most": round(max(intake)),
        },
    }
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
