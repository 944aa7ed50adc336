"""What is seen of one release when it is decided, and what a decision is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controlplane.evidence.better import Result
from controlplane.evidence.observation import Observation
from controlplane.evidence.verdict import Outcome, Verdict
from controlplane.policy.documents import Blackout
from controlplane.release.outcomes import Failure
from controlplane.release.state import Action, Call
from controlplane.release.traffic import Endpoints


@dataclass(frozen=True, slots=True)
class Propagation:
    """Which proxies have what this release's service should look like now.

    Attributes:
        live: Connected proxies of the service's fleets, sorted.
        acked: Those of them that acknowledged every resource of the service as it is wanted.
        nacked: (proxy, what and why) of those that refused one.
        absent: Proxies of the gate set that are not connected now: what they have is unknown.
        at_least: Share of ``live`` that must have acknowledged, parts per million.
        within: How long that may take before it counts as late.
        unserved: (proxy, why) of those that are connected and not answered; they have what they once got.
        alone: Proxies that are left alone: they have resources of another store, or wait for those that do.
        refused: (proxy, what and why) of those that are not connected and refused one when they were.
        left: Proxies that had the service, are of a fleet without it now, and have replaced what they had.
    """

    live: tuple[str, ...] = ()
    acked: tuple[str, ...] = ()
    nacked: tuple[tuple[str, str], ...] = ()
    absent: tuple[str, ...] = ()
    at_least: int = 1_000_000
    within: timedelta = timedelta(seconds=30)
    alone: tuple[str, ...] = ()
    unserved: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Proxies that have neither acknowledged nor refused."""
        refused = {proxy for proxy, _ in self.nacked}
        behind = (p for p in self.live if p not in self.acked and p not in refused)
        return (*behind, *(f"{p} (not connected)" for p in self.absent if p not in refused))

    @property
    def unacked(self) -> frozenset[str]:
        """Connected proxies that have not acknowledged what they should have now, for whatever reason."""
        return frozenset(self.live) - frozenset(self.acked)

    @property
    def left_alone(self) -> str:
        """Which proxies are left alone, and what ends that; '' if none is."""
        how = "proxies are left alone with what another store gave them: {}; see `turnout store init`"
        return how.format(", ".join(self.alone)) if self.alone else ""

    @property
    def trouble(self) -> str:
        """Which proxies refuse something or are not served, and why; '' if none."""
        refusing = (f"{proxy} refuses {why}" for proxy, why in self.nacked)
        return "; ".join((*refusing, *(f"{proxy} is not served: {why}" for proxy, why in self.unserved)))

    @property
    def complete(self) -> bool:
        """True if enough of the proxies have acknowledged and none has refused."""
        members = len(self.live) + len(self.absent)
        untroubled = bool(self.live) and not (self.trouble or self.alone)
        return untroubled and len(self.acked) * 1_000_000 >= members * self.at_least


@dataclass(frozen=True, slots=True)
class Links:
    """What other releases mean for one, each as a reason for people, '' where there is none.

    Attributes:
        unmet: A release that it depends on has not come far enough.
        failed: A release that it depends on went back.
        apart: Its group is not ready for its next step.
        fallen: A release of its group goes back, or must.
        first: Those of its group that depend on it and must be back before it.
        superseded: A release takes its place.
        succeeds: A release whose place it takes, and that a person must end first.
    """

    unmet: str = ""
    failed: str = ""
    apart: str = ""
    fallen: str = ""
    first: str = ""
    superseded: str = ""
    succeeds: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """All that a turn depends on besides the release itself and what the past taught.

    Attributes:
        at: When, UTC.
        elapsed: Since the turn before, by the monotonic clock; zero after a restart.
        observation: What was seen of the service since then, or None.
        first: True if nothing was observed before, as after a restart: the counts may span any time.
        settle: How long after the ACKs counters may still show requests that began before.
        propagation: Which proxies have what they should have.
        endpoints: Addresses by version, as the documents have them now.
        missing: Why a version has none, as the end of that sentence, where there is more to say.
        hosts: See `Endpoints`.
        busy: Name of another release of the service that is in progress; '' if there is none.
        stable: The service's stable version.
        blackouts: Of the service's fleets.
        links: What other releases mean for it.
    """

    at: datetime
    elapsed: timedelta
    observation: Observation | None = None
    first: bool = False
    settle: timedelta = timedelta(0)
    propagation: Propagation = field(default_factory=Propagation)
    endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, int | None] = field(default_factory=dict)
    busy: str = ""
    stable: str = ""
    blackouts: tuple[Blackout, ...] = ()
    links: Links = field(default_factory=Links)

    @property
    def where(self) -> Endpoints:
        """Where the versions answer, as the documents have them now."""
        return Endpoints(dict(self.endpoints), self.missing, self.hosts)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the tick saw of one release's service.

    Attributes:
        now: When, UTC; only the calendar reads it.
        elapsed: Since the tick before, by the monotonic clock; zero after a restart.
        propagation: See Propagation.
        stale: Why this interval's data must not count; '' if it is fresh and complete.
        split_problem: Where the observed split disagrees; '' if it does not.
        split_agrees: True if enough requests were seen since the ACKs to say that it agrees.
        split_missing: What is still too little to say so, for people.
        verdicts: One per condition, for this step and the whole release.
        results: What the A/B test has shown, while there is one.
        endpoints: Addresses by version, as the documents have them now.
        missing: Why a version has none, as the end of that sentence, where there is more to say.
        hosts: See `Endpoints`.
        suspicion: The release's rollback e-value; 1 says nothing, 100 rolls back.
        busy: Name of another release of this service that is in progress; '' if there is none.
        stable: What is stable now.
        blackouts: Of the service's fleets.
        links: What other releases mean for it.
        served: Whether requests of the canary were seen in this interval that are compared.
        quiet: Since when no requests come by which the step could be judged; '' if they do.
        returning: For how long they must still come, after a time without; '' if they came all the time.
        deserted: For how long no request of the service has come, of any version; '' where that is usual.
    """

    now: datetime
    elapsed: timedelta
    propagation: Propagation
    stale: str = ""
    split_problem: str = ""
    split_agrees: bool = False
    split_missing: str = ""
    verdicts: tuple[Verdict, ...] = ()
    results: tuple[Result, ...] = ()
    endpoints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, int | None] = field(default_factory=dict)
    suspicion: float = 1.0
    busy: str = ""
    stable: str = ""
    blackouts: tuple[Blackout, ...] = ()
    links: Links = field(default_factory=Links)
    served: bool = False
    quiet: str = ""
    returning: str = ""
    deserted: str = ""

    @property
    def unproved(self) -> tuple[Verdict, ...]:
        """What decides and does not pass."""
        return tuple(v for v in self.verdicts if v.decisive and v.outcome is not Outcome.PASS)

    @property
    def sighted(self) -> bool:
        """True if requests of the canary came and nothing but their number keeps it from being judged."""
        return self.served and not self.stale and not any(v.lacking for v in self.unproved)

    @property
    def where(self) -> Endpoints:
        """Where the versions answer, healthy endpoints only."""
        return Endpoints(self.endpoints, self.missing, self.hosts)

    def lack(self, version: str) -> str:
        """Say that a version has no endpoints, and why."""
        return f"{version} {self.where.lack(version)}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. Without an action the release stays where it is, for the reason given.

    ``code`` is short and stable while the situation is the same; ``cause`` names what is behind it, which
    conditions, proxies or versions, without anything that changes with each interval: by both a trouble is
    known. ``reason`` has the numbers.
    """

    action: Action | None
    code: str
    reason: str
    counts: bool = False  # this interval counts as time of judging
    calls: tuple[Call, ...] = ()  # to make from now on
    rest: timedelta | None = None  # after which it tries again by itself
    failure: Failure | None = None  # that led to it
    cause: str = ""  # of a hold
