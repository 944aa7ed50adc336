"""Fleet: proxies that are configured alike, and what they listen on."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from controlplane.policy.documents.calendar import Blackout
from controlplane.policy.documents.model import Model
from controlplane.policy.fields import (
    Duration,
    IpAddress,
    Name,
    Share,
)


class Nodes(Model):
    """Which proxies belong to the fleet; every field given must match the node."""

    id: str | None = Field(default=None, description="glob over the node id")
    cluster: str | None = None


class Listener(Model):
    """One port on which the fleet's proxies take requests; gRPC clients without a proxy have none."""

    name: Name
    address: IpAddress | None = None
    kind: Literal["edge", "local", "grpc"] = "edge"

    @model_validator(mode="after")
    def _has_its_address(self) -> Self:
        if self.kind == "grpc" and self.address is not None:
            raise ValueError("has an address; gRPC clients listen nowhere, so kind grpc takes none")
        if self.kind != "grpc" and self.address is None:
            raise ValueError(f"has no address; kind {self.kind} needs one")
        return self


class Propagate(Model):
    """When a change counts as having reached the fleet."""

    within: Duration = timedelta(seconds=30)
    at_least: Share = 1_000_000


class Fleet(Model):
    """A set of proxies that are configured alike."""

    kind: Literal["Fleet"]
    name: Name
    nodes: Nodes
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1)]
    propagate: Propagate = Propagate()
    blackouts: tuple[Blackout, ...] = ()

    @property
    def grpc(self) -> bool:
        """True for gRPC clients, which have no proxy."""
        return any(listener.kind == "grpc" for listener in self.listeners)
