"""Whether the split that Envoy counts is the one that was asked for.

Users are hashed but requests are counted, and a few heavy users move the share far: only what chance and they
do not explain disagrees. Source: docs/decision-rule.md, "Split check".
"""

from __future__ import annotations

from enum import StrEnum
from math import log, log1p
from typing import NamedTuple

FACTOR = 4.0
EXPECTED = 50  # requests that a side must have been due before its share is judged
RARE, RAREST = (
    log(100),
    log(10_000),
)  # chance beyond which a share is wrong: far off, and near the desired one
# Requests that are spread evenly over proxies hide their users; two in 500 are taken to be of one user.
LEAST_ALIKE = 0.002
LATE = 3  # requests of one proxy that began before it had the step and ended long after: streams, uploads


class Agreement(StrEnum):
    """How the counted split compares with the desired one."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    TOO_FEW = "too few"


class SplitVerdict(NamedTuple):
    """The answer.

    Attributes:
        agreement: How they compare.
        why: What is wrong, or missing; '' if nothing is.
        counted: The share that was desired, and the requests of both versions, where these say it.
        perhaps_few: Whether a few users who send much may do it though every route is right: where something
            spreads their requests over the proxies, they are not known.
    """

    agreement: Agreement
    why: str
    counted: tuple[float, int, int] | None = None
    perhaps_few: bool = False

    @property
    def reason(self) -> str:
        """One line for operators."""
        if self.counted is None:
            return self.why
        share, canary, baseline = self.counted
        seen = f"{canary} of {canary + baseline} requests went to the canary, {100 * share:.4g} % should"
        return f"{seen}; {self.why}" if self.why else seen


class Crowding(NamedTuple):
    """How far the requests of a group come from few users.

    Attributes:
        alike: Chance that two of them are of one user; one over how many equal users it comes to.
        heaviest: The largest share that one user may have.
        known: Whether this was learned, so that small deviations say something.
    """

    alike: float = 0.0
    heaviest: float = 0.0
    known: bool = False


ALONE = Crowding()  # each request is of another user, as far as anyone knows


def check_split(
    share: float,
    canary: int,
    baseline: int,
    late: int = LATE,
    crowding: Crowding = ALONE,
    older: tuple[int, int] = (0, 0),
) -> SplitVerdict:
    """Compare the requests of both versions in one segment with the canary's desired share.

    Args:
        share: Desired, in 0..1, as the segment's buckets give it: a hold-back makes it less than 1.
        canary: Requests of the canary that began after every proxy had the step.
        baseline: The same of the baseline.
        late: How many may have begun before, on the side that should have none.
        crowding: Of these requests.
        older: How many of the canary's and of the baseline's may have begun before, by how long they took;
            they are let through where none should be, as long as the other side has more.
    """
    requests, seen = canary + baseline, (share, canary, baseline)
    if not requests:
        return SplitVerdict(Agreement.TOO_FEW, "none counted yet")
    if not 0 < share < 1:
        return _check_whole(seen, late, older)
    due = [(share * requests, canary), ((1 - share) * requests, baseline)]
    due = [(part, got) for part, got in due if part >= EXPECTED]
    if [got for part, got in due if not part / FACTOR <= got <= part * FACTOR]:
        # Where a side has nothing at all it does not matter how few users there are.
        none = any(got <= late for _, got in due)
        if none or surprise(share, canary, baseline, crowding) >= RARE:
            return SplitVerdict(Agreement.DISAGREES, "", seen, perhaps_few=not none)
    if due and crowding.known and surprise(share, canary, baseline, _at_least(crowding)) >= RAREST:
        why = "heavy users that are known do not explain that"
        return SplitVerdict(Agreement.DISAGREES, why, seen, perhaps_few=True)
    missing = ""
    if share * requests < EXPECTED:
        missing = f"{EXPECTED} canary requests must be due"
    elif any(got * FACTOR < part for part, got in due):
        missing = "so few users send most that it may be chance"
    return SplitVerdict(Agreement.TOO_FEW if missing else Agreement.AGREES, missing, seen)


def _check_whole(seen: tuple[float, int, int], late: int, older: tuple[int, int]) -> SplitVerdict:
    """Return whether one version has all requests; arguments as in :func:`check_split`."""
    share, canary, baseline = seen
    sides = ("canary", canary, older[0]), ("baseline", baseline, older[1])
    (version, due, _), (other, got, before) = sides if share > 0 else reversed(sides)
    excused = max(0, before) if 2 * before <= canary + baseline else 0
    if got - excused > late:
        return SplitVerdict(Agreement.DISAGREES, f"{got} {other} requests where none should be")
    if not due:  # what is let through shows nothing
        return SplitVerdict(Agreement.TOO_FEW, f"none of the {version} counted yet, {got} of the {other}")
    return SplitVerdict(Agreement.AGREES, "", seen)


def usual(share: float, canary: int, baseline: int) -> bool:
    """Return whether chance alone brings requests so near to a share: then :func:`check_split` lets them be.

    Crowds only make it larger what is let through; so does what came late where a side should have none.
    """
    if not 0 < share < 1:
        return (baseline if share > 0 else canary) <= LATE
    requests = canary + baseline
    off = canary - share * requests
    return off * off < 2 * RAREST * share * (1 - share) * requests


def surprise(share: float, canary: int, baseline: int, crowding: Crowding) -> float:
    """Return -log of a bound of the chance that users' buckets give shares that are so far off.

    The lesser of two bounds: that one side has so few (variables that are not negative), and that the other
    has so many (Bennett's inequality, where one user has at most the heaviest share).
    """
    requests = canary + baseline
    part, got = (share, canary) if canary < share * requests else (1 - share, baseline)
    off = part - got / requests
    each = 1 / requests
    variance = part * (1 - part) * (crowding.alike + each)
    most = crowding.heaviest + each
    ratio = most * off / variance
    many = variance / most**2 * ((1 + ratio) * log1p(ratio) - ratio)
    return max(off * off / (2 * part * (crowding.alike + each)), many)


def _at_least(crowding: Crowding) -> Crowding:
    return Crowding(
        max(crowding.alike, LEAST_ALIKE), max(crowding.heaviest, LEAST_ALIKE**0.5), crowding.known
    )
