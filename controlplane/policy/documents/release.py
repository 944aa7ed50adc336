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


class Release(Model):
    """One order: take a service from one version to another under a policy."""

    kind: Literal["Release"]
    name: Name
    service: Name
    from_: Name = Field(alias="from")
    to: Name
    policy: Name
    attempt: Annotated[StrictInt, Field(ge=1)] = 1
    start: Literal["auto", "manual"]
