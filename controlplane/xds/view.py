"""What is known of a stream, as values that others may keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal, NamedTuple

from controlplane.xds.messages import Node
from controlplane.xds.snapshot import Resource
from controlplane.xds.type_urls import Ref
from controlplane.xds.validity import Validity
from controlplane.xds.version import Version

Variant = Literal["sotw", "delta"]


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, as the transport saw it.

    Attributes:
        address: With its port.
        identities: The names that its certificate proves (SPIFFE id, subject alternative names, common name);
            empty without mutual TLS.
        valid: From when until when that certificate is valid; None without, or if it cannot be read.
    """

    address: str
    identities: tuple[str, ...] = ()
    valid: Validity | None = None

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0].strip("[]") or self.address


@dataclass(frozen=True, slots=True)
class Nack:
    """A client's refusal of one version of one resource, or of a batch with an unknown culprit (None).

    ``owners`` are those whose parts may be the culprit, where several share the resource; else it is empty.
    """

    version: Version | None
    message: str
    at: datetime
    owners: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Return the client's words."""
        return self.message


class Versions(Mapping[str, Version]):
    """The version of each resource of a table, which must not change any more; nothing of it is copied."""

    __slots__ = ("_newest", "_table")

    def __init__(self, table: Mapping[str, Resource]) -> None:
        self._table = table
        self._newest: Version | None = None

    def __getitem__(self, name: str) -> Version:
        return self._table[name].version

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def newest(self) -> Version | None:
        """The version of the highest revision, None of an empty table."""
        if self._newest is None:
            versions = [resource.version for resource in self._table.values()]
            self._newest = max(versions, key=lambda version: version.revision, default=None)
        return self._newest


class Received(NamedTuple):
    """What a request was: the first one of its type, the ACK of our last response, or its refusal."""

    type_url: str
    first: bool
    acked: bool
    nack: Nack | None


@lru_cache(maxsize=64)
def answered(type_url: str, acked: bool) -> Received:
    """Return what a request was that at most ACKs and asks for nothing: one value for all streams."""
    return Received(type_url, first=False, acked=acked, nack=None)


@dataclass(frozen=True, slots=True)
class TypeView:
    """One type of one stream.

    Attributes:
        type_url: The type.
        served: False if no snapshot of this group has the type; then it gets no answer.
        wildcard: True if the client asks for everything.
        names: What it asks for by name.
        since: When the stream first asked for the type.
        sent: Version of each resource that was last sent, or that the client had when it came.
        acked: Version of each resource that the client has accepted.
        nacks: The refusal of each resource whose present target the client refused.
        error: The last refusal, until everything refused was replaced.
        nacked: How many responses the client has refused since the stream began.
        gated: Resources that wait for another one to be ACKed, and for which.
        partial: What the client has accepted in place of a target that waits or was refused: some parts of it
            may be those of the target.
        waiting_since: When the response was sent that is not answered yet.
        sent_at: When the last response was sent.
        acked_at: When the client last accepted one.
    """

    type_url: str
    served: bool
    wildcard: bool
    names: frozenset[str]
    since: datetime
    sent: Versions
    acked: Versions
    nacks: Mapping[str, Nack]
    error: Nack | None
    gated: Mapping[str, Ref]
    waiting_since: datetime | None
    sent_at: datetime | None = None
    acked_at: datetime | None = None
    partial: Mapping[str, Resource] = field(default_factory=dict)
    nacked: int = 0


@dataclass(frozen=True, slots=True)
class StreamView:
    """One stream.

    Attributes:
        group: None while its node is unknown.
        revision: Of its snapshot; None while it has none.
        behind: The client has seen newer versions than the snapshot's.
        strange: What the client has from another store, where it differs from the target; of a set whose
            content is unknown, the name is ``*``.
        alone: Why it is left without an answer although it has a target; '' if it is not.
        due: It waits for its turn: since its target changed nobody has looked what to send to it.
    """

    peer: Peer
    variant: Variant
    since: datetime
    node: Node | None
    group: str | None
    revision: int | None
    behind: bool
    types: tuple[TypeView, ...]
    strange: tuple[Ref, ...] = ()
    alone: str = ""
    due: bool = False

    def __str__(self) -> str:
        """Return who it is."""
        return self.node.id if self.node is not None else self.peer.address

    def of(self, type_url: str) -> TypeView | None:
        """Return the view of one type, or None if the stream never asked for it."""
        return next((view for view in self.types if view.type_url == type_url), None)
