"""A release for which data that should come does not: it stands, and so does its clock. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.evidence.verdict import Verdict
from controlplane.release import telling
from controlplane.release.seen import Decision

NO_DATA = "no-data"


def without_data(verdicts: Iterable[Verdict]) -> Decision | None:
    """Return the hold while no data comes for one of these conditions; None if it does for all.

    Only they are told: what others lack besides comes with time, and this does not.
    """
    silent = [verdict for verdict in verdicts if verdict.overdue]
    if not silent:
        return None
    return Decision(None, NO_DATA, telling.lacks(silent), cause=telling.causes(silent))
