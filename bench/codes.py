"""Conditions on gRPC codes, on simulated releases: failures of the usual models count as calls with a code.

``python -m bench.codes`` prints the figures of docs/decision-rule.md, "gRPC statuses". What the usual errors
do to the rule of errors they do here to that of codes, which knows of the past what the release has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from bench.report import say
from controlplane.evidence.observation import Measure, Observation
from controlplane.policy.pinned import PinnedPolicy
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import Ended, end, follow, past
from controlplane.simulation.summary import Rate
from controlplane.simulation.traffic import Harm, Model, Traffic

COMPARED = {"codes": ["PERMISSION_DENIED"]}
LIMITED = COMPARED | {"at_most": "2%"}
LADDER = ("1%", "5%", "10%", "25%", "50%", "100%")


class Coded:
    """Traffic whose errors are calls with a code, which no other condition sees."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self.second = traffic.second

    def step(
        self, shares: Mapping[str, tuple[str, float]], guarding: float | None = None, era: str = ""
    ) -> tuple[Observation, Harm]:
        """Return the next interval."""
        seen, harm = self._traffic.step(shares, guarding, era)
        self.second = self._traffic.second
        measures = [
            Measure(cell, f"grpc:{code}", count)
            for cell, tally in seen.cells
            for code, count in ((0, tally.requests - tally.errors), (7, tally.errors))
        ]
        cells = tuple((cell, replace(tally, errors=0)) for cell, tally in seen.cells)
        return replace(seen, cells=cells, measures=tuple(sorted(measures))), harm


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of release.

    Attributes:
        fault: What is wrong, as `turnout simulate --fault` has it.
        usual: Share of calls with the code.
        noise: One of the families of noise.
        first: Share of the first step.
        limited: Whether the condition is a limit of 2 %, else compared with the baseline.
    """

    fault: str = "none"
    usual: float = 0.005
    noise: str = "mod"
    first: str = "5%"
    limited: bool = False

    def run(self, seed: int) -> Ended:
        """Return how a release ends."""
        ladder = LADDER[LADDER.index(self.first) :]
        condition = {"grpc_status": LIMITED if self.limited else COMPARED}
        policy = PinnedPolicy.model_validate(
            {
                "name": "coded",
                "steps": [{"name": f"s{share[:-1]}", "share": share, "for": "1m"} for share in ladder],
                "conditions": [condition],
                "guard": {"for": "5m", "hold_back": "2%"},
            }
        )
        faults = () if self.fault == "none" else (Fault.parse(self.fault),)
        model = Model(errors=self.usual, noise=self.noise)
        # The past of the codes is not known: the releases begin as they would after an update of Turnout.
        traffic = Traffic(model, (), seed)
        learned = past(traffic)
        source = Coded(traffic.beset(faults))
        return end(policy, follow(policy, source, model.names, model.interval, model.longest, learned))


GOOD = (
    Kind(usual=0.0),
    Kind(),
    Kind(noise="harsh"),
    Kind(usual=0.1),
    Kind(usual=0.1, noise="harsh"),
    Kind("outage=20%"),
    Kind("outage=20%", noise="harsh"),
    Kind(limited=True),
    Kind(limited=True, noise="harsh"),
)
BAD = (
    Kind("errors=10%"),
    Kind("errors=10%", usual=0.0),
    Kind("errors=10%", noise="harsh"),
    Kind("errors=x5", first="1%"),
    Kind("errors=10%", limited=True),
    Kind("errors=100%"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="releases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    for kind in (*GOOD, *BAD):
        with ProcessPoolExecutor(given.jobs) as pool:
            seeds = range(given.seed, given.seed + given.n)
            ended = list(pool.map(partial(Kind.run, kind), seeds, chunksize=5))
        say(f"{kind.fault:12s} usual {kind.usual:<6g} {kind.noise:6s} {_shown(ended)}  {kind}")


def _shown(ended: list[Ended]) -> str:
    back = [each.seconds for each in ended if each.outcome == "rolled back"]
    good = [each.seconds for each in ended if each.outcome == "promoted"]
    rate = Rate.of(len(back), len(ended))
    text = f"rolled back {len(back)} of {len(ended)} (to {100 * rate.high:.1f} %)"
    if back:
        text += f" after {median(back):.0f}/{sorted(back)[int(0.95 * (len(back) - 1))]:.0f} s"
    return f"{text}, promoted {len(good)} after {median(good) / 60 if good else 0:.1f} min"


if __name__ == "__main__":
    main()
