"""Which intervals an A/B test rests on: those for which the split is seen to have been as asked for.

What a test gathers is kept apart until enough requests have come that the split of these very requests
agrees. If it does not, or is found wrong meanwhile, the test goes on from where it was sure of it.

Source: docs/decision-rule.md, "A/B tests".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.evidence.account import EMPTY, Account, Folded
from controlplane.evidence.better import Half
from controlplane.evidence.crowd import Crowd
from controlplane.evidence.evidence import Evidence
from controlplane.evidence.split import Agreement, check_split

PART = 0.05  # of the requests, from which on a proxy's or a segment's split must agree by itself

Place = tuple[str, str]  # proxy, segment
Row = tuple[int, int]  # canary requests, baseline requests


@dataclass(frozen=True, slots=True)
class Trial:
    """What vouches for a test.

    Attributes:
        sure: Accounts of the test, from the intervals of which the split agreed.
        batch: Requests by proxy and segment in the intervals since then.
        clean: Seconds since the split was last seen to be wrong; None if it never was.
    """

    sure: Mapping[str, Account] = field(default_factory=dict)
    batch: Mapping[Place, Row] = field(default_factory=dict)
    clean: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nothing is lost."""
        return {
            "sure": {name: self.sure[name].to_json() for name in sorted(self.sure)},
            "batch": [[*place, *row] for place, row in sorted(self.batch.items())],
            "clean": self.clean,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """Return what :meth:`to_json` was made from."""
        sure = {name: Account.from_json(account) for name, account in data["sure"].items()}
        batch = {(proxy, segment): (canary, base) for proxy, segment, canary, base in data["batch"]}
        return cls(sure, batch, data["clean"])


BEGUN = Trial(clean=0.0)  # until then some users of the stable version had none to differ from


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of the split.

    Attributes:
        wrong: Whether it is found to be wrong by the requests of late.
        segment: In which the step shows.
        crowd: How far heavy users may move a share.
    """

    wrong: bool
    segment: str
    crowd: Crowd


def apart(trial: Trial, tests: Sequence[Folded]) -> bool:
    """Return whether what is pushed may still tell of a time in which the split was wrong."""
    covered = max((half.covers for half in tests if isinstance(half, Half)), default=0.0)
    return trial.clean is not None and trial.clean < covered


def gathered(
    trial: Trial,
    evidence: tuple[Evidence, Evidence],
    tests: Sequence[Folded],
    fresh: Mapping[Place, Row],
    seconds: float,
) -> tuple[Trial, Evidence]:
    """Return the trial and the evidence after an interval.

    Args:
        trial: Until then.
        evidence: Before the interval was folded, and after.
        tests: What is gathered.
        fresh: Requests of the interval by proxy and segment, if it counts.
        seconds: How long it was.
    """
    before, after = evidence
    accounts = dict(after.accounts)
    if apart(trial, tests):
        # A value that is pushed tells of the time before it, in which the split was wrong.
        waiting = (half.name for half in tests if isinstance(half, Half) and half.covers)
        accounts |= {name: before.accounts.get(name, EMPTY) for name in waiting}
    batch = dict(trial.batch)
    for place, row in fresh.items():
        known = batch.get(place, (0, 0))
        batch[place] = known[0] + row[0], known[1] + row[1]
    sure = {name: account.restarted(before.minute, after.minute) for name, account in trial.sure.items()}
    clean = None if trial.clean is None else trial.clean + seconds
    return Trial(sure, batch, clean), replace(after, accounts=accounts)


def vouched(
    trial: Trial, evidence: Evidence, tests: Sequence[Folded], shares: Mapping[str, float], check: Check
) -> tuple[Trial, Evidence]:
    """Return both once the split was looked at: sure of more, or with what may be wrong left out.

    Args:
        trial: With the interval.
        evidence: The same.
        tests: What is gathered.
        shares: The canary's, in 0..1, by segment, of segments that are divided.
        check: What is known of the split.
    """
    names = {half.name for half in tests}
    if check.wrong or (agrees := _agrees(trial.batch, shares, check)) is False:
        others = {name: account for name, account in evidence.accounts.items() if name not in names}
        kept = {name: account for name, account in trial.sure.items() if name in names}
        return replace(trial, batch={}, clean=0.0), replace(evidence, accounts=others | kept)
    if not agrees:
        return trial, evidence
    accounts = {name: account for name, account in evidence.accounts.items() if name in names}
    return replace(trial, sure=accounts, batch={}), evidence


def _agrees(batch: Mapping[Place, Row], shares: Mapping[str, float], check: Check) -> bool | None:
    """Return whether the split of these requests is as asked for; None while they are too few."""
    whole = sum(map(sum, batch.values()))
    own = [row for (_, segment), row in batch.items() if segment == check.segment]
    all_of = sum(canary for canary, _ in own), sum(baseline for _, baseline in own)
    rows = [(segment, row) for (_, segment), row in batch.items() if segment in shares]
    found = []
    for segment, row in [(check.segment, all_of), *rows]:
        crowding = check.crowd.within(sum(row) / max(whole, 1))
        agreement = check_split(shares.get(segment, 0.0), *row, crowding=crowding).agreement
        if agreement is Agreement.DISAGREES:
            return False
        found.append(agreement is Agreement.AGREES or sum(row) < PART * whole)
    return True if sum(all_of) and all(found) else None
