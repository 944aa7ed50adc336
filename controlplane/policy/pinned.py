"""A policy with its references resolved, as a release keeps it from start to end.

Editing the policy or a segment afterwards does not reach a release that has started.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from controlplane.policy.documents import (
    EVERY,
    EVERYONE,
    AgainstBaseline,
    Approve,
    Condition,
    Conduct,
    Irreversible,
    Match,
    Model,
    OnFailure,
    User,
)
from controlplane.policy.fields import Duration, Name
from controlplane.policy.values import PPM, format_share, parse_share

Ppm = Annotated[
    int,
    Field(ge=0, le=PPM),
    BeforeValidator(lambda value: value if type(value) is int else parse_share(value)),
    PlainSerializer(format_share, return_type=str),
]  # a share that code may also give as parts per million


class PinnedSegment(Model):
    """A segment that stays on the baseline, spelled out, with its name in statistics."""

    name: Name
    match: Match


class PinnedMirror(Model):
    """Which requests are copied to the canary, and their share in parts per million."""

    match: Match | None = None
    share: Ppm


class PinnedStep(Model):
    """One step with its segment spelled out.

    ``segment`` is the name in statistics: ``everyone`` for a percentage step, the step's own name for an
    inline segment. ``match`` is None when every request is meant. ``share`` is in parts per million.
    ``conditions`` are its own, besides the policy's.
    """

    name: Name
    segment: Name = EVERYONE
    match: Match | None = None
    share: Ppm
    for_: Duration = Field(default=timedelta(0), alias="for")
    within: Duration | None = None
    approve: Approve | None = None
    on_failure: OnFailure | None = None
    mirror: PinnedMirror | None = None
    irreversible: Irreversible | None = None
    conditions: tuple[Condition, ...] = ()
    exclude: tuple[PinnedSegment, ...] = ()


class PinnedMetric(Model):
    """A business metric of the service, as it was when the release was ordered."""

    name: Name
    better: Literal["more", "less"]
    sum: bool = False
    pushed: bool = False
    per: Name | None = None
    per_pushed: bool = False
    every: Duration = EVERY


ERRORS = Condition(errors=AgainstBaseline())


class PinnedPolicy(Conduct):
    """A policy as a release runs it.

    ``conditions`` are all that hold at every step and in the guard: what is on by itself is spelled out, and
    what was switched off is not there. ``metrics`` are the business metrics that they or ``observe`` name.
    ``hold_out`` is the service's, if any; ``user`` as well, None in stores of before it was kept, which means
    what its document says.
    """

    name: Name
    steps: tuple[PinnedStep, ...] = Field(min_length=1)
    conditions: tuple[Condition, ...] = (ERRORS,)
    metrics: tuple[PinnedMetric, ...] = ()
    hold_out: tuple[PinnedSegment, ...] = ()
    user: User | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_0_1(cls, data: Any) -> Any:
        """Read what version 0.1 stored: each kind of condition had a field of its own."""
        if not isinstance(data, dict) or not data.keys() & {"errors", "latency", "success_rate"}:
            return data
        rest = {k: v for k, v in data.items() if k not in ("errors", "latency", "success_rate")}
        errors, success = data.get("errors"), data.get("success_rate")
        found = [{"errors": errors}] if errors else []
        found += [{"latency": {f"p{percentile:g}": limit}} for percentile, limit in data.get("latency", ())]
        found += [{"success_rate": {"at_least": success}}] if success is not None else []
        return rest | {"conditions": found}
