"""Records of what people do."""

from __future__ import annotations

from datetime import datetime

from controlplane.release.ports import Record
from controlplane.release.state import ReleaseState


def record_of(state: ReleaseState, action: str, actor: str, reason: str, now: datetime) -> Record:
    """Return the record of what a person did to a release, which is as it was before."""
    return Record(
        at=now,
        kind="action",
        release=state.name,
        attempt=state.attempt,
        service=state.service,
        action=action,
        actor=actor,
        step=state.at,
        reason=reason,
    )
