"""Who gets an answer from the HTTP API, and who may change something by it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from controlplane.policy.roles import covers
from controlplane.web.operators import Operator, Operators
from controlplane.web.port import Need, RefusedError

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Access:
    """How requests are let in.

    Attributes:
        operators: Who has a token; None lets everyone in who reaches the port.
        local: Whether the port is on loopback. Then, without tokens, a request must also be meant for this
            machine: a page that makes its own name point here would else act in its visitor's place.
    """

    operators: Operators | None = None
    local: bool = False

    def admit(self, request: Request) -> Operator | None:
        """Return whose request it is; None if nobody is asked.

        Raises:
            RefusedError: If it is nobody's.
        """
        if self.operators is None:
            if self.local and request.url.hostname not in LOCAL:
                asked = request.url.hostname
                raise RefusedError(403, f"{asked!r} is not this machine; --operators lets others in")
            return None
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise RefusedError(401, "this server wants a token: set TURNOUT_TOKEN")
        operator = self.operators.of(token.strip())
        if operator is None:
            raise RefusedError(401, "the token is not known; `turnout token` makes one")
        return operator


def permit(operator: Operator, need: Need) -> None:
    """Let an operator do something.

    Raises:
        RefusedError: If it takes somebody else, with who.
    """
    if not covers(operator.role, need.role):
        raise RefusedError(403, f"{operator.name} is {operator.role}; that takes {need.role}")
    if operator.services and need.service not in operator.services:
        what = f"service {need.service!r}" if need.service else "all services"
        known = ", ".join(operator.services)
        raise RefusedError(403, f"that concerns {what}; {operator.name} is {operator.role} of {known}")
