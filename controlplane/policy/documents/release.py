"""Release: one order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictInt,
)

from controlplane.policy.documents.model import Model
from controlplane.policy.fields import (
    Name,
)


class After(Model):
    """Another release that must have come so far before this one starts."""

    release: Name
    reached: Literal["guarding", "promoted"] = "promoted"


class Release(Model):
    """One order: take a service from one version to another under a policy."""

    kind: Literal["Release"]
    name: Name
    service: Name
    from_: Name = Field(alias="from")
    to: Name
    policy: Name
    after: tuple[After, ...] = ()
    group: Name | None = None
    supersedes: Name | None = None
    reason: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    attempt: Annotated[StrictInt, Field(ge=1)] = 1
    start: Literal["auto", "manual"]
