"""Who is told what about a release."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controlplane.policy.documents.model import Model
from controlplane.policy.fields import Url

Event = Literal[
    "ordered", "started", "asking", "advanced", "held", "guarding", "promoted", "rolling_back", "rolled_back",
    "stepped_back", "retried", "frozen", "paused", "resumed", "ended", "cleared",
]  # fmt: skip


class Notify(Model):
    """Where notifications go; each is sent until it is taken, with an id that stays the same."""

    one_of = ("webhook", "slack")

    webhook: Url | None = Field(default=None, description="takes a CloudEvent as JSON")
    slack: Url | None = Field(default=None, description="takes {text: ...}, as Slack and others do")
    on: Annotated[tuple[Event, ...], Field(min_length=1)] = (
        "asking", "held", "cleared", "stepped_back", "retried", "frozen", "promoted", "rolling_back",
        "rolled_back", "ended",
    )  # fmt: skip

    @property
    def url(self) -> str:
        """The address, or ``$NAME`` for one that is in the server's environment."""
        return self.webhook or self.slack or ""
