"""What each user came to: versions are divided by users, and so is the noise between two that are alike.

Of values that are pushed by user it is known what each of them adds up to. Then a user is the unit, however
often they come, and nothing has to be said of how many events one makes.

Source: docs/decision-rule.md, "A/B tests: pushed by user".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import erfc, inf, log, log1p, pi, sqrt
from typing import NamedTuple

from controlplane.evidence.account import Account, Interval
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.evidence.measures import Measured
from controlplane.policy.documents import UNCOMPARED

USERS = "users:"  # of an account's state: by epoch and segment
LEAST = 20  # users of each version, before they tell anything
EFFECTS = (0.03, 0.1, 0.3, 1.0)  # standard deviations of the differences that are looked for, side by side
FAR = -20.0  # standard deviations


class Row(NamedTuple):
    """Users of both versions in one segment, the sums of their totals, and of the squares of these."""

    n_c: float
    total_c: float
    squares_c: float
    n_b: float
    total_b: float
    squares_b: float

    @property
    def told(self) -> bool:
        """Whether both versions have users enough to differ among themselves."""
        return min(self.n_c, self.n_b) > 1

    def variance(self, ratio: float) -> float:
        """Return that of the difference of means, if the canary's is ``ratio`` times the baseline's.

        The larger of what each version shows by itself and both as one: where few have much, the version
        that happens to have nobody of these does not know of them.
        """
        n_c, n_b = self.n_c, self.n_b
        squares_b, mean_b = ratio**2 * self.squares_b, ratio * self.total_b / n_b
        mean_c, mean = self.total_c / n_c, (self.total_c + ratio * self.total_b) / (n_c + n_b)
        own = (self.squares_c / n_c - mean_c**2) / n_c + (squares_b / n_b - mean_b**2) / n_b
        both = ((self.squares_c + squares_b) / (n_c + n_b) - mean**2) * (1 / n_c + 1 / n_b)
        return max(own, both, 0.0)


@dataclass(frozen=True, slots=True)
class Totals:
    """Keeps what users came to, of both versions.

    Attributes:
        name: How its account is called.
        measured: What is pushed.
    """

    name: str
    measured: Measured

    def fold(self, account: Account, interval: Interval) -> Account:
        """Return the account after one interval."""
        return noted(account, interval, self.measured)


def noted(account: Account, interval: Interval, measured: Measured) -> Account:
    """Return the account with what users came to until now; an interval tells it of the whole epoch."""
    columns = {interval.stage.canary: 0, interval.stage.stable: 3}
    found: dict[str, list[float]] = {}
    for m in interval.observation.measures:
        cell, users = m.cell, m.users
        known = m.metric == measured.metric and not measured.per and cell.segment not in UNCOMPARED
        if users is not None and known and cell.version in columns:
            key, at = f"{USERS}{users.epoch}:{cell.segment}", columns[cell.version]
            row = found.setdefault(key, list(account.state.get(key, (0.0,) * 6)))
            row[at : at + 3] = users.n, users.total, users.squares
    if not found:
        return account
    return account._replace(state=dict(account.state) | {key: tuple(row) for key, row in found.items()})


def known(account: Account) -> bool:
    """Return whether values were pushed by user."""
    return any(key.startswith(USERS) for key in account.state)


def counts(account: Account) -> Iterator[tuple[float, float, float, float]]:
    """Yield users and the sums of their totals, of the canary and of the baseline, by epoch and segment."""
    return ((row.n_c, row.total_c, row.n_b, row.total_b) for _, row in _rows(account))


def log_e(account: Account, ratio: float, *, more: bool) -> float:
    """Return the logarithm of the e-value of the canary's mean being beyond ``ratio`` times the baseline's.

    Args:
        account: With what users came to.
        ratio: That is tolerated.
        more: Whether beyond means above it, or below.
    """
    difference, deviation = _difference(account, ratio)
    if not difference:
        return 0.0
    z = (difference if more else -difference) / deviation
    return log_mean_exp(tuple(_mixture(z, (effect / deviation) ** 2) for effect in EFFECTS))


def _mixture(z: float, known: float) -> float:
    """Return the logarithm of the likelihood ratio, mixed over effects of one sign.

    Args:
        z: The difference in standard deviations.
        known: Squared effect that is looked for, in the same.
    """
    shown = z * sqrt(known / (1 + known))
    if shown < FAR:
        # The chance of the sign is too small for a number, but what it is multiplied by makes up for that.
        return log(2) - log1p(known) / 2 - log(-shown * sqrt(2 * pi))
    return log(2) - log1p(known) / 2 + shown**2 / 2 + log(erfc(-shown / sqrt(2)) / 2)


def _difference(account: Account, ratio: float) -> tuple[float, float]:
    """Return the difference as a part of the mean of both, and its standard deviation; (0, inf) for none.

    Users of one epoch may be those of another one, so the deviations of epochs add up, not their squares.
    """
    difference = deviation = mean = users_c = users_b = 0.0
    for _, rows in groupby(_rows(account), key=lambda found: found[0]):
        squares = 0.0
        for _, row in rows:
            n_c, n_b = row.n_c, row.n_b
            difference += row.total_c - n_c * ratio * row.total_b / n_b
            mean += n_c * (row.total_c + ratio * row.total_b) / (n_c + n_b)
            squares += n_c**2 * row.variance(ratio)
            users_c, users_b = users_c + n_c, users_b + n_b
        deviation += sqrt(squares)
    if min(users_c, users_b) < LEAST or mean <= 0 or not deviation:
        return 0.0, inf
    return difference / mean, deviation / mean


def _rows(account: Account) -> Iterable[tuple[str, Row]]:
    """Return the rows of which both versions have users, by epoch."""
    found = (
        (key.split(":", 2)[1], Row(*row))
        for key, row in sorted(account.state.items())
        if key.startswith(USERS)
    )
    return ((epoch, row) for epoch, row in found if row.told)
