"""Fleet: proxies that are configured alike, and what they listen on."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from controlplane.policy.capabilities import Feature, Kind, refusal
from controlplane.policy.documents.calendar import Blackout
from controlplane.policy.documents.model import Model
from controlplane.policy.documents.settings import ListenerOverrides
from controlplane.policy.documents.tokens import Tokens
from controlplane.policy.fields import (
    Duration,
    FilePath,
    IpAddress,
    Name,
    NodeMetadata,
    Share,
)


class Locality(Model):
    """Where proxies run, as their bootstrap says; every field given must be equal."""

    region: str | None = None
    zone: str | None = None
    sub_zone: str | None = None


class Nodes(Model):
    """Which proxies belong to the fleet; every field given must match the node."""

    id: str | None = Field(default=None, max_length=200, description="glob over the node id")
    cluster: str | None = None
    locality: Locality | None = None
    metadata: NodeMetadata | None = Field(
        default=None, description="values in the node's metadata, nested as there; other keys do not matter"
    )

    def __hash__(self) -> int:
        return hash((self.id, self.cluster, self.locality))


class Tls(Model):
    """Files on the proxy with which a listener proves who it is; read again whenever they are replaced."""

    certificate: FilePath
    key: FilePath


class Listener(Model):
    """One port on which the fleet's proxies take requests; gRPC clients without a proxy have none."""

    name: Name
    address: IpAddress | None = None
    kind: Kind = "edge"
    tls: Tls | None = None
    envoy: ListenerOverrides = ListenerOverrides()

    @model_validator(mode="after")
    def _is_able_to(self) -> Self:
        given = {
            Feature.ADDRESS: ("an address", self.address),
            Feature.TLS: ("tls", self.tls),
            Feature.MANAGER: ("envoy.connection_manager", self.envoy.connection_manager),
        }
        for feature, (what, value) in given.items():
            if value is not None and (reason := refusal(self.kind, feature)):
                raise ValueError(f"has {what}, and kind {self.kind} takes none: {reason}")
        if self.address is None and not refusal(self.kind, Feature.ADDRESS):
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
    tokens: Tokens | None = None

    @property
    def claims(self) -> frozenset[str]:
        """The claims of tokens that its proxies verify."""
        return frozenset(self.tokens.claims if self.tokens is not None else ())

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of its listeners, sorted."""
        return tuple(sorted({listener.kind for listener in self.listeners}))

    @property
    def transparent(self) -> bool:
        """True for proxies that are given the connections of a machine, whatever they were meant for."""
        return "transparent" in self.kinds

    @property
    def adopted(self) -> bool:
        """True for proxies whose listeners are their owner's, and ask for our routes."""
        return "adopt" in self.kinds

    @property
    def grpc(self) -> bool:
        """True for gRPC clients, which have no proxy."""
        return "grpc" in self.kinds
