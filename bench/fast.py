"""Services that answer nearly everything within the first edge of the histograms, on simulated releases.

``python -m bench.fast`` prints the figures of docs/decision-rule.md, "Services of a millisecond"; ``--n``
is the number of releases of each row.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from statistics import median

from bench.cells import OURS, policy
from bench.report import say
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import Ended, release
from controlplane.simulation.pauses import NO_PAUSES, Pauses
from controlplane.simulation.traffic import Model

NOISES, RATES = ("iid", "mod", "harsh"), (20.0, 100.0, 1000.0)
# The median in ms, and pauses: 0.0004, 0.02 and 0.1 % of the requests are slower than 5 ms without any.
SERVICES = {
    "0.1 ms": (0.1, NO_PAUSES),
    "0.2 ms": (0.2, NO_PAUSES),
    "0.3 ms": (0.3, NO_PAUSES),
    "0.1 ms, 0.01 % in pauses of 20": (0.1, Pauses(0.0001, 20)),
    "0.1 ms, 0.1 % in pauses of 5": (0.1, Pauses(0.001, 5)),
    "0.1 ms, 0.1 % in pauses of 100": (0.1, Pauses(0.001, 100)),
}
FAULTS = {
    "x10: 1 ms, 1.7 % slower than 5 ms": "latency=x10",
    "x20: 2 ms, 8 %": "latency=x20",
    "x40: 4 ms, 37 %": "latency=x40",
    "50 ms more": "latency=x501",
    "50 ms more from 5 min": "latency=x501@5m",
    "a tenth of the requests 250 ms": "tail=x3.3+latency=x450",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of release.

    Attributes:
        service: One of SERVICES.
        noise: One of the families of noise.
        rps: Requests per second.
        fault: What is wrong, as `turnout simulate --fault` has it.
        first: Share of the first step.
    """

    service: str
    noise: str
    rps: float
    fault: str = "none"
    first: str = "1%"

    def run(self, seed: int) -> Ended:
        """Return how a release ends."""
        latency, pauses = SERVICES[self.service]
        usual = Model(rps=self.rps, noise=self.noise, segments={"some": 0.1}, longest=7200.0)
        model = replace(usual, latency=latency, pauses=pauses)
        faults = tuple(Fault.parse(part) for part in self.fault.split("+"))
        return release(policy(OURS, self.first), model, faults, seed)


def rows(kinds: list[Kind], n: int, seed: int) -> Iterator[tuple[Kind, list[Ended]]]:
    """Yield how ``n`` releases of each kind end."""
    with ProcessPoolExecutor(2) as pool:
        for kind in kinds:
            yield kind, list(pool.map(partial(Kind.run, kind), range(seed, seed + n)))


def told(ended: list[Ended]) -> str:
    """Say how releases ended, and after which time."""
    back, whole = ([e for e in ended if e.outcome == name] for name in ("rolled back", "promoted"))
    text = f"{len(back)} rolled back, {len(whole)} promoted of {len(ended)}"
    for name, some in (("back", back), ("promoted", whole)):
        seconds = sorted(e.seconds for e in some)
        if seconds:
            text += f"; {name} after {median(seconds):.0f}/{seconds[int(0.95 * len(seconds))]:.0f} s"
    causes = sorted({f"{e.where}: {e.metric}" for e in back})
    return text + (f" ({', '.join(causes)})" if back else "")


def main() -> None:
    """Print all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--seed", type=int, default=810_000)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    kinds = [Kind(*parts) for parts in product(SERVICES, NOISES, RATES)]
    kinds += [
        Kind("0.1 ms", noise, rps, fault) for fault, noise, rps in product(FAULTS.values(), NOISES, RATES)
    ]
    for kind, ended in rows([kind for kind in kinds if args.only in str(kind)], args.n, args.seed):
        say(f"{kind.fault:24s} {kind.service:32s} {kind.noise:6s} {kind.rps:5.0f}/s  {told(ended)}")


if __name__ == "__main__":
    main()
