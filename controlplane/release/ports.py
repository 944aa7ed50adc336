"""What the release loop asks of the outside: a store, and what it reads and writes there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import Field

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Blackout, Model, Service
from controlplane.release.recording import Origin, Recorded, Recording
from controlplane.release.state import RETURNED, RETURNING, ReleaseState

Json = Mapping[str, object]


class Record(Model):
    """One decision, action or change, as the CLI, the API and the audit log show it.

    Attributes:
        at: When, UTC.
        kind: ``decision`` (the loop's), ``action`` (an operator's), ``documents`` or ``calendar``.
        release: Its name; '' for what concerns none.
        attempt: Of the release; 0 for what concerns none.
        service: Its service; '' for what concerns none.
        action: What was done: an Action, ``hold``, ``switch``, ``apply``.
        step: Where the release was.
        reason: For people: why, with names and numbers.
        actor: Who: ``turnout`` or a person.
        numbers: The inputs: verdicts, counts, propagation.
        number: Position in the log, given by the store.
    """

    at: datetime
    kind: str
    release: str = ""
    attempt: int = 0
    service: str = ""
    action: str
    step: str = ""
    reason: str
    actor: str = "turnout"
    numbers: dict[str, object] = Field(default_factory=dict)
    number: int = 0


class Declared(Model):
    """A blackout that an operator declared, beside those of the fleet's document."""

    id: str
    fleet: str
    blackout: Blackout
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A notification, written with what it tells and sent until somebody takes it.

    Attributes:
        record: Position of its record in the change.
        url: Where it goes; ``$NAME`` is an address in the server's environment.
        body: What is sent as JSON.
    """

    record: int
    url: str
    body: Json


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that nobody has taken yet.

    Attributes:
        id: Its own and the same in every attempt, so that a receiver can tell a repetition.
        since: When it was written.
        due: When it is to be tried next.
        tries: How often it was.
        error: What came of the last try.
    """

    id: str
    url: str
    body: Json
    since: datetime
    due: datetime
    tries: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """All that publishing and deciding start from: one consistent read of the store.

    Attributes:
        revision: Grows by one with every change of what proxies may see.
        catalog: The accepted documents.
        generation: Their number; 0 before the first were accepted.
        stable: Stable version by service.
        releases: By name, ended ones included.
        blackouts: Declared by operators, by id.
        began: The first revision of this store, or since somebody said what is stable in place of a lost one;
            what proxies have from before is another store's.
        settled: Services of which somebody said in this store what is stable, known to the documents or not.
        active: By service: the release that has traffic; taken from ``releases``.
        open_ends: Releases without traffic of which proxies are not confirmed; likewise.
    """

    revision: int
    catalog: Catalog
    generation: int = 0
    stable: Mapping[str, str] = field(default_factory=dict)
    releases: Mapping[str, ReleaseState] = field(default_factory=dict)
    blackouts: Mapping[str, Declared] = field(default_factory=dict)
    began: int = 0
    settled: frozenset[str] = frozenset()
    active: Mapping[str, ReleaseState] = field(init=False, repr=False, compare=False)
    open_ends: tuple[ReleaseState, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the active releases once: there are few, among all that ever were."""
        active: dict[str, ReleaseState] = {}
        for release in self.releases.values():
            if release.active:
                active.setdefault(release.service, release)
        object.__setattr__(self, "active", active)
        open_ends = (r for r in self.releases.values() if r.unconfirmed and not r.active)
        object.__setattr__(self, "open_ends", tuple(open_ends))

    def of_service(self, service: str) -> ReleaseState | None:
        """Return the service's release that has traffic, or None."""
        return self.active.get(service)

    def had(self, service: str) -> frozenset[str]:
        """Return the proxies that may serve a release of a service, wherever they are now."""
        going = self.of_service(service)
        gate = (proxy for proxy, _ in going.gate) if going is not None else ()
        states = (state for state in (going, *self.open_ends) if state is not None)
        known = (each.proxy for state in states if state.service == service for each in state.unconfirmed)
        return frozenset((*gate, *known))

    def blackouts_of(self, service: str) -> tuple[Blackout, ...]:
        """Return the blackouts of all fleets that a service is on."""
        document = self.catalog.get("Service", service)
        fleets = document.fleets if isinstance(document, Service) else ()
        written = (blackout for fleet in fleets for blackout in self.catalog.fleet(fleet).blackouts)
        return (*written, *(d.blackout for d in self.blackouts.values() if d.fleet in fleets))


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction. Nothing of it is written unless all of it is.

    Attributes:
        releases: New states; each must still have the revision in the store that it had when it was read.
        stable: Services whose stable version changes.
        catalog: Newly accepted documents.
        records: To append.
        blackouts: By id, of those that operators declare; None withdraws one.
        settled: Services of which it is said what is stable, to be added; others follow from ``stable``.
        above: A revision that proxies have seen and that is to be passed: all before it is another store's.
        evidence: By name and attempt of the release (`ReleaseState.key`): the fold so far.
        learned: By service: what the baseline's past taught.
        cursors: By proxy: how far its counters were read; None forgets the proxy.
        messages: To send, once for sure and more often at worst.
        origins: Of releases that begin, by name; what was recorded under the name before is forgotten.
        turns: Of releases in progress, by name.
    """

    releases: tuple[ReleaseState, ...] = ()
    stable: Mapping[str, str] = field(default_factory=dict)
    catalog: Catalog | None = None
    records: tuple[Record, ...] = ()
    blackouts: Mapping[str, Declared | None] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    above: int = 0
    evidence: Mapping[str, Json] = field(default_factory=dict)
    learned: Mapping[str, Json] = field(default_factory=dict)
    cursors: Mapping[str, Json | None] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    turns: tuple[tuple[str, Recorded], ...] = ()

    @property
    def retreats(self) -> bool:
        """True if it takes traffic away from a canary: the last thing that a full disk may stop."""
        return any(state.phase in RETURNING | RETURNED for state in self.releases)

    def visible_after(self, world: World) -> bool:
        """True if proxies may have to look different after this change."""
        moved = any(
            state.name not in world.releases or state.shape != world.releases[state.name].shape
            for state in self.releases
        )
        return moved or bool(self.stable) or bool(self.settled) or self.catalog is not None

    def settled_after(self, world: World) -> frozenset[str]:
        """Return the services of which it is said what is stable; a service's first version says nothing."""
        before = world.settled if self.above <= world.revision else frozenset[str]()
        return before | self.settled | (self.stable.keys() & world.stable.keys())

    def revision_after(self, world: World) -> int:
        """Return the revision of the world that it makes."""
        return max(world.revision, self.above) + self.visible_after(world)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the tick remembers between intervals, as last committed."""

    evidence: Mapping[str, Json]
    learned: Mapping[str, Json]
    cursors: Mapping[str, Json]


class StoreError(Exception):
    """The store cannot be read or written; the message says where and what to do."""


class StoreConflictError(StoreError):
    """Somebody else wrote a release in between; read again."""


class Store(Protocol):
    """The truth. Every method may raise StoreError."""

    async def world(self) -> World:
        """Read documents, stable versions and releases."""
        ...

    async def memory(self) -> Memory:
        """Read evidence, learned values and cursors."""
        ...

    async def commit(self, change: Change) -> World:
        """Write all of a change, or nothing; return the world after it."""
        ...

    async def records(
        self, release: str | None = None, limit: int = 100, after: int | None = None
    ) -> tuple[Record, ...]:
        """Read the newest records, or the first ones after number ``after``; oldest first."""
        ...

    async def appended(self, after: int) -> None:
        """Wait until there is a record after number ``after``, or the store is closed."""
        ...

    async def recording(self, release: str, after: int = 0, limit: int = 1000) -> Recording:
        """Read what a release went through: the first ``limit`` turns after number ``after``."""
        ...

    async def waiting(self) -> tuple[Waiting, ...]:
        """Read the messages that nobody has taken yet, those that are due first ahead; 1000 at most."""
        ...

    async def taken(self, id: str) -> None:  # noqa: A002
        """Forget a message: somebody has it, or nobody ever will."""
        ...

    async def postponed(self, message: Waiting) -> None:
        """Write when a message is to be tried next, and why it was not taken."""
        ...

    def changes(self) -> AsyncIterator[World]:
        """Yield the world after each visible change; a slow reader gets the latest only."""
        ...

    async def close(self) -> None:
        """Release files and threads."""
        ...
