"""A policy with its references resolved, as a release keeps it from start to end.

Editing the policy or a segment afterwards does not reach a release that has started.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from controlplane.policy.documents import (
    EVERYONE,
    AgainstBaseline,
    Approve,
    Guard,
    Match,
    Model,
    OnFailure,
    WhenUnsure,
    Window,
)
from controlplane.policy.fields import Duration, Name
from controlplane.policy.values import PPM, format_share, parse_share

Ppm = Annotated[
    int,
    Field(ge=0, le=PPM),
    BeforeValidator(lambda value: value if type(value) is int else parse_share(value)),
    PlainSerializer(format_share, return_type=str),
]  # a share that code may also give as parts per million


class PinnedStep(Model):
    """One step with its segment spelled out.

    ``segment`` is the name in statistics: ``everyone`` for a percentage step, the step's own name for an
    inline segment. ``match`` is None when every request is meant. ``share`` is in parts per million.
    """

    name: Name
    segment: Name = EVERYONE
    match: Match | None = None
    share: Ppm
    for_: Duration = Field(default=timedelta(0), alias="for")
    within: Duration | None = None
    approve: Approve | None = None


class PinnedPolicy(Model):
    """A policy as a release runs it.

    ``errors`` is None when switched off. ``latency`` holds (percentile in 0..100, limit), sorted;
    ``success_rate`` is in parts per million, None without a limit.
    """

    name: Name
    steps: tuple[PinnedStep, ...] = Field(min_length=1)
    errors: AgainstBaseline | None = AgainstBaseline()
    latency: tuple[tuple[float, Duration], ...] = ()
    success_rate: Ppm | None = None
    when_unsure: WhenUnsure = WhenUnsure()
    on_failure: OnFailure = OnFailure()
    guard: Guard = Guard()
    deadline: Duration | None = None
    on_timeout: Literal["hold", "rollback"] = "hold"
    windows: tuple[Window, ...] = ()
