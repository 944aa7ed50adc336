"""Within what a user counts once."""

from __future__ import annotations

from controlplane.release.state import ReleaseState, Stage


def era(state: ReleaseState | None) -> str:
    """Return within what a user counts once: while nobody changes versions, or has the wrong one."""
    if state is None:
        return ""
    apart = "/apart" if state.apart else ""
    return f"{state.key}/{state.phase}/{state.step}/{state.stage is Stage.PROPAGATE}{apart}"
