"""What the HTTP API asks of the control plane behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from controlplane.policy.roles import Role
from controlplane.release.ports import Record
from controlplane.release.recording import Recording
from controlplane.web.asked import (
    Act,
    Adopt,
    Asked,
    CohortAsked,
    Declare,
    Documents,
    Order,
    Push,
    Resend,
    Switch,
    Who,
)
from controlplane.web.shown import (
    Applied,
    BlackoutShown,
    CohortShown,
    DocumentsShown,
    Explained,
    ProxyShown,
    PushShown,
    ReleaseShown,
    ServiceShown,
)


@dataclass(frozen=True, slots=True)
class Need:
    """Who may do something.

    Attributes:
        role: At least this one.
        service: Whose operators; empty if it takes someone whose role holds for all services.
        step: What an approval that names no step would be given to.
    """

    role: Role
    service: str = ""
    step: str = ""


class RefusedError(Exception):
    """The control plane will not do that; ``status`` is the HTTP status, the message is for people."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControlPlane(Protocol):
    """The application as the HTTP API sees it; every method may raise RefusedError."""

    @property
    def ready(self) -> bool:
        """True once the state is loaded and served."""
        ...

    def need(self, action: str, name: str, wanted: BaseModel) -> Need:
        """Return who may do that to a release or service; ``name`` is empty for what concerns all."""
        ...

    def services(self) -> tuple[ServiceShown, ...]:
        """Return all services, by name."""
        ...

    async def releases(self) -> tuple[ReleaseShown, ...]:
        """Return all releases, newest first."""
        ...

    def release(self, name: str) -> ReleaseShown:
        """Return one release."""
        ...

    async def proxies(self) -> tuple[ProxyShown, ...]:
        """Return all connected proxies, by id."""
        ...

    async def look(self) -> None:
        """Look at all streams, in several turns of the loop: comes before what asks for them in one."""
        ...

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong now, the worst first."""
        ...

    async def records(self, release: str | None, limit: int, after: int | None = None) -> tuple[Record, ...]:
        """Return the newest records, or the first ones after number ``after``; oldest first."""
        ...

    async def recording(self, release: str, after: int, limit: int) -> Recording:
        """Return a part of what a release was decided from, to decide it again."""
        ...

    def follow(self, release: str | None, after: int | None) -> AsyncIterator[Record]:
        """Yield each record after number ``after``, or each that is written from now on, until cancelled."""
        ...

    def explain(self, asked: Asked) -> Explained:
        """Say what a proxy does with a request."""
        ...

    def cohort(self, release: str, asked: CohortAsked) -> CohortShown:
        """Say who is in a release's canary."""
        ...

    async def order(self, order: Order) -> ReleaseShown:
        """Create a release."""
        ...

    async def act(self, release: str, action: str, act: Act) -> ReleaseShown:
        """Do what an operator asks: advance, approve, promote, pause, resume, rollback."""
        ...

    def blackouts(self) -> tuple[BlackoutShown, ...]:
        """Return the blackouts of all fleets, those of documents first."""
        ...

    async def declare(self, declare: Declare) -> tuple[BlackoutShown, ...]:
        """Add a blackout to a fleet."""
        ...

    async def withdraw(self, blackout: str, who: Who) -> tuple[BlackoutShown, ...]:
        """Remove a blackout that an operator added."""
        ...

    async def resend(self, wanted: Resend) -> None:
        """Let a proxy begin anew, so that it is sent what it refused."""
        ...

    def push(self, service: str, metric: str, push: Push) -> PushShown:
        """Take in values of a metric that is pushed."""
        ...

    async def switch(self, service: str, switch: Switch) -> ServiceShown:
        """Make a version stable at once."""
        ...

    async def undo(self, name: str, act: Act) -> ServiceShown:
        """Make stable what was so before the last promotion; by service or release."""
        ...

    async def adopt(self, adopt: Adopt) -> tuple[ServiceShown, ...]:
        """Say what is stable in place of a store that was lost; return all services."""
        ...

    @property
    def left_alone(self) -> int:
        """How many services are left alone, because proxies have them from another store."""
        ...

    def documents(self) -> DocumentsShown:
        """Return which documents are in force."""
        ...

    async def apply(self, documents: Documents) -> Applied:
        """Take in documents."""
        ...
