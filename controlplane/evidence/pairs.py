"""Pushed values of two versions, which come at moments of their own, brought together to be compared.

Source: docs/decision-rule.md, "Business metrics".
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.evidence.account import NO_COUNTS, Account, Counts, plus
from controlplane.evidence.reading import rough

HELD, CAME = "held:", "came:"
ALONE = "age:pair"  # seconds since values of both versions were together

Table = Mapping[str, Counts]  # by segment


def paired(
    account: Account, fresh: Table, came: Table, needed: tuple[int, ...], prefix: str = ""
) -> tuple[Account, Table]:
    """Return the account with what waits for the other version, and by segment the counts of which both came.

    Args:
        account: Until then.
        fresh: Counts of an interval.
        came: How often something was pushed in it, by segment, in columns like those of counts.
        needed: Which of these must not be 0.
        prefix: Of the names by which it is kept.
    """
    state, ready = dict(account.state), {}
    held, known = prefix + HELD, prefix + CAME
    waiting = [key.removeprefix(held) for key in state if key.startswith(held)]
    for segment in sorted({*fresh, *came, *waiting}):
        row = plus(fresh.get(segment, NO_COUNTS), _counts(state.pop(held + segment, NO_COUNTS)))
        pushes = plus(came.get(segment, NO_COUNTS), _counts(state.pop(known + segment, NO_COUNTS)))
        if row[0] and row[2] and all(pushes[column] for column in needed):
            ready[segment] = row
        else:
            state |= {held + segment: row, known + segment: pushes}
    return account._replace(state=state), ready


def timed(account: Account, ready: Table, seconds: float) -> Account:
    """Return the account with how long no values of both versions were together."""
    age = 0.0 if ready else account.state.get(ALONE, (0.0,))[0] + seconds
    return account._replace(state=dict(account.state) | {ALONE: (age,)})


def apart(account: Account, every: float) -> str:
    """Return that values of both versions come, but for long not of the same segment, or ''."""
    (age,) = account.state.get(ALONE, (0.0,))
    if age <= 3 * every:
        return ""
    rows = {k.removeprefix(HELD): row for k, row in sorted(account.state.items()) if k.startswith(HELD)}
    canary, baseline = (", ".join(s for s, row in rows.items() if row[side]) or "none" for side in (0, 2))
    return (
        f"for {rough(age)} values of both versions did not come for the same segment: "
        f"of the canary for {canary}, of the baseline for {baseline}"
    )


def _counts(row: tuple[float, ...]) -> Counts:
    a, b, c, d = row
    return a, b, c, d
