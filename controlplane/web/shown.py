"""What the HTTP API answers."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Shown(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class ServiceShown(Shown):
    """One service: what is stable, and the release in progress."""

    name: str
    fleets: tuple[str, ...]
    hosts: tuple[str, ...]
    versions: tuple[str, ...]
    stable: str
    release: str = ""
    left_alone: tuple[str, ...] = Field(
        default=(), description="proxies that have it from another store; see `turnout store init`"
    )
    had: str = Field(
        default="", description="the version that all requests get there, if their routes prove it"
    )


class StepShown(Shown):
    """One rung of the ladder; ``share`` as operators write it; a promotion may have skipped it."""

    name: str
    segment: str
    share: str
    state: Literal["done", "current", "todo", "skipped"]
    approval: str = Field(default="", description="'needed', or who gave it; '' if the step needs none")


class ProxyShare(Shown):
    """One proxy's part in a release.

    ``asked`` and ``observed`` are the canary's shares in 0..1, in the segment of the present step; the latter
    is None without requests since every proxy had the step, and on the way back.
    """

    proxy: str
    acked: bool
    problem: str = ""
    asked: float
    observed: float | None
    canary_requests: int
    baseline_requests: int
    canary_errors: int
    baseline_errors: int


class VerdictShown(Shown):
    """One condition as it stands."""

    metric: str
    segment: str
    outcome: str
    reason: str
    note: str = Field(default="", description="what else is to be known of what it was compared with")
    numbers: dict[str, float] = Field(default_factory=dict)
    requests_needed: int | None = None
    seconds_needed: float | None = None


class ResultShown(Shown):
    """What an A/B test has shown of one metric.

    ``change`` is the difference as a part of the baseline, None where that has nothing; ``better`` and
    ``worse`` are e-values, and ``threshold`` is where one of them shows it. ``low`` and ``high`` are between
    what the difference surely lies, None where that has no bound. Only what ``decides`` promotes.
    """

    metric: str
    said: str
    change: float | None
    canary: float
    baseline: float
    canary_n: float
    baseline_n: float
    better: float
    worse: float
    threshold: float
    low: float | None
    high: float | None
    decides: bool


class ReleaseShown(Shown):
    """One release: where it is, why, and what was seen."""

    name: str
    attempt: int
    service: str
    from_version: str
    to_version: str
    policy: str
    emergency: bool = False
    purpose: str = Field(default="", description="why it was ordered; an emergency says it")
    phase: str
    halt: str | None
    stage: str
    step: str = Field(description="where it is in its policy, or was when it left it; '' after a promotion")
    steps: tuple[StepShown, ...]
    hold: str
    because: str = Field(description="why it is where it is; of one that went back, what led to it and where")
    onward: str = Field(default="", description="what can be done with it, once it has ended")
    undone: str = Field(default="", description="who made another version stable after its promotion")
    judged_seconds: float
    canary_requests: int = 0
    canary_errors: int = 0
    suspicion: float = 1.0
    verdicts: tuple[VerdictShown, ...] = ()
    ends: str = Field(default="", description="how its A/B test ends, and when; '' if it is none")
    results: tuple[ResultShown, ...] = Field(default=(), description="of its A/B test")
    proxies: tuple[ProxyShare, ...] = Field(default=(), description="none once it has ended")
    drift: tuple[str, ...] = Field(
        default=(), description="what the documents say by now; a release that has started never follows"
    )
    unconfirmed: str = Field(
        default="", description="after the end: which proxies may still serve what was before it; '' if none"
    )
    return_point: str = Field(description="what a rollback would do now")
    return_unsafe: bool = Field(
        default=False, description="a rollback would not do what it should: too few endpoints, or none"
    )
    point_of_no_return: str = Field(default="", description="how far away it is, or that it is passed")
    retired: bool = Field(
        default=False, description="promoted, and no proxy routes to the old version any more"
    )
    salt: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class TypeShown(Shown):
    """One type of one proxy's stream.

    ``asked`` is ``*`` for everything, a number of names, or both; ``resources`` how many the proxy has;
    ``sent`` and ``acked`` the newest version that went out and that came back; ``waiting_seconds`` the age of
    the response that is not answered yet; ``nacks`` how many responses were refused since the stream began.
    Times are None, versions empty, where nothing was.
    """

    type: str
    asked: str
    resources: int
    sent: str
    sent_at: datetime | None
    acked: str
    acked_at: datetime | None
    nacked: str
    nacked_at: datetime | None
    nacks: int = 0
    gated: int
    waiting_seconds: float | None


class ProxyShown(Shown):
    """One connected proxy.

    ``identity`` are the names that the certificate proves with which it connected, and
    ``certificate_expires_at`` is when that one ends.
    """

    id: str
    fleet: str
    address: str
    identity: tuple[str, ...] = ()
    certificate_expires_at: datetime | None = None
    version: str
    protocol: str
    connected_at: datetime
    state: Literal["synced", "waiting", "nacked", "alone", "behind", "refused", "unknown"]
    problems: tuple[str, ...] = ()
    statistics: str
    types: tuple[TypeShown, ...] = ()


class BlackoutShown(Shown):
    """A blackout of a fleet; ``id`` and ``actor`` are empty for a document's, ``until`` None if not now."""

    id: str
    fleet: str
    when: str
    because: str
    actor: str
    until: datetime | None


class Explained(Shown):
    """What a proxy does with a request; ``share`` as operators write it, ``version`` '' if it is drawn."""

    fleet: str
    service: str
    claim: str
    release: str
    rule: int
    rules: int
    segment: str
    share: str
    spans: tuple[tuple[int, int], ...]
    user: str | None
    source: str | None
    salt: str
    bucket: int | None
    version: str
    because: str


class GroupShown(Shown):
    """One group of requests, and the buckets of its users who get the canary."""

    segment: str
    share: str
    spans: tuple[tuple[int, int], ...]


class MemberShown(Shown):
    """One user."""

    user: str
    bucket: int
    segment: str
    canary: bool


class CohortShown(Shown):
    """All that is needed to work out who gets the canary, and who of those asked for does."""

    release: str
    service: str
    step: str
    stable: str
    canary: str
    salt: str
    formula: str
    groups: tuple[GroupShown, ...]
    users: tuple[MemberShown, ...] = ()


class DocumentShown(Shown):
    """One document that is in force, and where it was read."""

    kind: str
    name: str
    file: str
    line: int
    column: int


class DocumentsShown(Shown):
    """The documents in force; ``generation`` is another one with each change."""

    generation: int
    documents: tuple[DocumentShown, ...]


class Applied(Shown):
    """What came of taking in documents."""

    generation: int
    accepted: tuple[str, ...]
    removed: tuple[str, ...] = ()
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class PushShown(Shown):
    """Whether a push counts; it does not if one with its key did."""

    counted: bool
