"""Other systems that a release asks or tells on its way."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from controlplane.policy.documents.model import Model
from controlplane.policy.fields import Duration, Url

Point = Literal["start", "before_step", "judging", "before_promote", "end", "failure"]


class Hook(Model):
    """One call. At the first four points the release waits for a yes; at the others it only tells."""

    at: Point
    url: Url
    timeout: Duration = Field(default=timedelta(seconds=10), description="of one attempt")


class Run(Model):
    """One call, made once and for all; a URL alone will do."""

    url: Url
    timeout: Duration = Field(default=timedelta(seconds=10), description="after it the outcome is unknown")


RunChoice = Annotated[
    Run,
    BeforeValidator(
        lambda value: {"url": value} if isinstance(value, str) else value, json_schema_input_type=str | Run
    ),
]
