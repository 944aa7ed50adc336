"""What a release went through, kept so that it can be decided again: see `replay`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from controlplane.release.seen import Moment
from controlplane.release.state import ReleaseState


@dataclass(frozen=True, slots=True)
class Origin:
    """A release as it was right before its first step, and what the service's past had taught until then."""

    state: ReleaseState
    learned: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One turn of a release: what it was decided from.

    Attributes:
        moment: What was seen.
        state: The release before the turn, where it was not as the turn before had left it: an operator
            acted, or the process began; else None.
    """

    moment: Moment
    state: ReleaseState | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A part of a release's turns, oldest first.

    Attributes:
        origin: None if the release never began, or what was recorded is forgotten.
        turns: In order.
        last: Number of the last turn here, to read on after it; 0 if there is none.
    """

    origin: Origin | None
    turns: tuple[Recorded, ...]
    last: int


RECORDING: TypeAdapter[Recording] = TypeAdapter(Recording)
