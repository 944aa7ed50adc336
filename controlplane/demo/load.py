"""The load: users' requests over the proxies at a steady rate, and what the users themselves saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from controlplane.demo.client import Answer, Pool
from controlplane.demo.fault import Fault
from controlplane.demo.sample import INJECTED, LONGEST_MS, VERSION
from controlplane.demo.users import User, visits

TICK = 0.005  # seconds between looks at what is due; a timer per request would cost more
SETTLE = 1.0  # seconds in which a growing share may have reached one proxy and not yet another
GIVE_UP = 20.0  # seconds after which a request without an answer has failed
_KEPT = 8  # examples of unexplained failures
_SLOTS = 2000  # milliseconds in the latency histogram


@dataclass(frozen=True, slots=True)
class Seen:
    """What the users of one version saw; latencies in milliseconds, None before the first answer."""

    version: str
    requests: int = 0
    failed: int = 0
    p50: int | None = None
    p95: int | None = None
    p99: int | None = None


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """The load's own counts.

    Attributes:
        requests: Answered or failed.
        failed: Everything but an answer of class 2xx.
        unexplained: Failures that neither the sample service nor the fault made.
        canary: Requests that the canary answered, or that were to reach it and found it crashed.
        in_flight: Sent, without an answer yet.
        skipped: Due, but not sent, because too many were in flight.
        rate: Requests a second over the last two seconds or so.
        versions: By version, sorted.
        users: Different users seen.
        users_on_canary: Of these, who had the canary at least once.
        examples: What the first unexplained failures looked like.
    """

    requests: int = 0
    failed: int = 0
    unexplained: int = 0
    canary: int = 0
    in_flight: int = 0
    skipped: int = 0
    rate: float = 0.0
    versions: tuple[Seen, ...] = ()
    users: int = 0
    users_on_canary: int = 0
    examples: tuple[str, ...] = ()


def explained(answer: Answer, fault: Fault, timeout: timedelta) -> bool:
    """Return whether the sample service or the fault made this failure, and nothing else can have.

    The service marks what it injects. Under ``crash`` the canary refuses connections and cut those that it
    had: Envoy says so in the body of its 503. The baseline never closes a connection and its port never
    closes, so nothing else gives these bodies. Under ``latency`` Envoy's 504 is explained only if the factor
    takes the slowest request beyond the route's ``timeout``.
    """
    if answer.header(INJECTED):
        return True
    if answer.status == 503:
        return crashed(answer, fault)
    too_slow = LONGEST_MS * fault.factor > timeout / timedelta(milliseconds=1)
    return answer.status == 504 and too_slow and answer.body == b"upstream request timeout"


def crashed(answer: Answer, fault: Fault) -> bool:
    """Return whether Envoy made this 503 because the canary has crashed."""
    reason = answer.body.partition(b"reset reason: ")[2]
    return (
        fault.kind == "crash"
        and answer.status == 503
        and reason.startswith((b"remote connection failure", b"connection termination"))
    )


class Load:
    """An open loop: requests are sent when they are due, however slow the answers are.

    Attributes:
        fault: What is wrong now; it decides which failures are explained.
        first_canary_at: Time of the loop at which the first request to the canary was sent, None before.
    """

    def __init__(
        self,
        users: tuple[User, ...],
        ports: Sequence[int],
        rps: float,
        timeout: timedelta = timedelta(seconds=5),
        canary: str = "v2",
        seed: int = 0,
    ) -> None:
        """Prepare a load of ``rps`` requests a second in all over these ports; ``timeout`` is the routes'."""
        self.fault = Fault()
        self.first_canary_at: float | None = None
        self._pools = [Pool(port) for port in ports]
        self._rps = rps
        self._timeout = timeout
        self._canary = canary
        self._visits = visits(users, seed)
        self._rng = random.Random(f"load/{seed}")
        self._most = max(64, round(rps))  # in flight
        self._due = self._expire_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        self._next_pool = 0
        self._in_flight = 0
        self._requests = self._failed = self._unexplained = self._canaries = self._skipped = 0
        self._by_version: Counter[str] = Counter()
        self._failed_by_version: Counter[str] = Counter()
        self._latency: dict[str, list[int]] = {}
        self._users: set[str] = set()
        self._got_canary: dict[str, float] = {}
        self._moved_back: dict[str, float] = {}
        self._recent: deque[tuple[float, int]] = deque(maxlen=5)
        self._examples: list[str] = []

    async def start(self) -> None:
        """Open connections and begin to send."""
        # Proxies that share a port get connections at random: many of them make the parts even.
        await asyncio.gather(*(pool.fill(max(32, round(self._rps / 10))) for pool in self._pools))
        self._due = asyncio.get_running_loop().time()
        self._tick()

    async def stop(self, within: float = 10.0) -> None:
        """Send no more, wait for the answers that are due, then close the connections."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._in_flight:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), within)
        for pool in self._pools:
            pool.close()

    def moved_back(self, before: float | None = None) -> int:
        """Count users who had the canary and then the baseline, by requests sent before a time of the loop.

        Pass when the rollback was decided, None if there was none. A request counts only if it was sent
        more than SETTLE after the user's first answer from the canary: proxies take a change one by one.
        """
        return sum(before is None or sent < before for sent in self._moved_back.values())

    def counts(self) -> LoadCounts:
        """Return what was counted until now."""
        now = asyncio.get_running_loop().time()
        if not self._recent or now - self._recent[-1][0] >= 0.5:
            self._recent.append((now, self._requests))
        since, had = self._recent[0]
        return LoadCounts(
            requests=self._requests,
            failed=self._failed,
            unexplained=self._unexplained,
            canary=self._canaries,
            in_flight=self._in_flight,
            skipped=self._skipped,
            rate=(self._requests - had) / (now - since) if now > since else 0.0,
            versions=tuple(self._seen(version) for version in sorted(self._by_version)),
            users=len(self._users),
            users_on_canary=len(self._got_canary),
            examples=tuple(self._examples),
        )

    def _seen(self, version: str) -> Seen:
        slots = self._latency[version]
        return Seen(
            version,
            self._by_version[version],
            self._failed_by_version[version],
            *(_percentile(slots, share) for share in (0.5, 0.95, 0.99)),
        )

    def _tick(self) -> None:
        """Send what is due."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._due <= now:
            self._due += self._rng.expovariate(self._rps)
            if self._in_flight < self._most:
                self._send(now, loop)
            else:
                self._skipped += 1
        if now >= self._expire_at:
            self._expire_at = now + 1
            for pool in self._pools:
                pool.expire(now - GIVE_UP)
        self._timer = loop.call_later(TICK, self._tick)

    def _send(self, now: float, loop: asyncio.AbstractEventLoop) -> None:
        user, request = next(self._visits)
        self._in_flight += 1
        self._next_pool = (self._next_pool + 1) % len(self._pools)
        pool = self._pools[self._next_pool]
        pool.send(request, lambda answer: self._count(user, now, loop.time(), answer))

    def _count(self, user: User, sent: float, received: float, answer: Answer) -> None:
        self._in_flight -= 1
        if self._drained and not self._in_flight:
            self._drained.set()
        self._requests += 1
        version = answer.header(VERSION)
        failed = not 200 <= answer.status < 300
        if failed:
            self._failed += 1
            if crashed(answer, self.fault):
                version = self._canary
            elif not explained(answer, self.fault, self._timeout):
                self._unexplained += 1
                if len(self._examples) < _KEPT:
                    self._examples.append(_describe(answer))
        if version:
            self._by_version[version] += 1
            self._failed_by_version[version] += failed
            slots = self._latency.setdefault(version, [0] * _SLOTS)
            slots[min(_SLOTS - 1, int((received - sent) * 1000))] += 1
        if version == self._canary:
            self._canaries += 1
            if self.first_canary_at is None or sent < self.first_canary_at:
                self.first_canary_at = sent
        if user.id:
            self._remember(user.id, version, sent, received)

    def _remember(self, user: str, version: str, sent: float, received: float) -> None:
        """Keep who had the canary since when, and who was sent back to the baseline."""
        self._users.add(user)
        if version == self._canary:
            self._got_canary.setdefault(user, received)
        elif version and sent > self._got_canary.get(user, sent) + SETTLE:
            self._moved_back[user] = min(sent, self._moved_back.get(user, sent))


def _percentile(slots: list[int], share: float) -> int | None:
    """Return the millisecond below which ``share`` of the counts lie."""
    left = sum(slots) * share
    for ms, count in enumerate(slots):
        left -= count
        if count and left <= 0:
            return ms
    return None


def _describe(answer: Answer) -> str:
    """Return one line on a failure."""
    if answer.status == 0:
        return f"no answer: {answer.head.decode('latin-1')}"
    return f"{answer.status}: {answer.body[:160].decode('latin-1').strip()}"
