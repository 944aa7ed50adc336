"""What a push and its ACK cost above the transport: the whole server over streams without sockets.

Unlike the difference of two servers' CPU, this is Python alone: less depends on what else the machine does.
With 5000 proxies it is cold too: what belongs to a stream has left the caches when its turn comes.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from bench.report import Table, section
from bench.wire import ANSWERS, EVERYTHING, Asks, first_requests, node, snapshots
from controlplane.app import logs
from controlplane.server.limits import Limits
from controlplane.server.streams import XdsServer
from controlplane.server.transport import Written
from controlplane.xds.view import Peer, Variant

STAGES = ("turn", "written", "ACK")
_WALK = bytes(64 << 20)  # more than any cache holds


class Proxy:
    """One proxy: it answers when it is told to."""

    def __init__(self, variant: Variant, number: int, asks: Asks = EVERYTHING) -> None:
        self.peer = Peer("127.0.0.1:1")
        self.sent: list[bytes] = []
        self.done: Written | None = None
        self.waiting: asyncio.Future[bytes | None] | None = None
        self._first = first_requests(variant, node(number), asks)

    end = None

    async def read(self) -> bytes | None:
        """Return what it sends next."""
        if self._first:
            return self._first.pop(0)
        self.waiting = asyncio.get_running_loop().create_future()
        return await self.waiting

    def write(self, data: bytes, done: Written) -> None:
        """Take what is sent to it."""
        self.sent.append(data)
        self.done = done

    def finish(self, status: str, text: str) -> None:
        """Fail: nothing here is to end a stream."""
        raise RuntimeError(f"a stream was ended: {status} {text}")

    def take(self) -> None:
        """The write is out."""
        done, self.done = self.done, None
        if done is not None:
            done(None)

    @property
    def free(self) -> bool:
        """True if the server waits for a request."""
        return self.waiting is not None and not self.waiting.done()

    def answer(self, data: bytes) -> None:
        """Send a request."""
        assert self.waiting is not None
        self.waiting.set_result(data)


async def measure(variant: Variant, proxies: int, rounds: int) -> list[list[float]]:
    """Return seconds of CPU of each stage, of each round, for all proxies together."""
    limits = Limits(first_requests=1e9, silent_per_peer=proxies)  # all begin in one turn of the loop
    server = XdsServer(lambda n: n.cluster, identifier="turnout", limits=limits)
    sequence = snapshots()
    server.publish("edge", sequence.next(1000))
    fleet = [Proxy(variant, number) for number in range(proxies)]
    tasks = [asyncio.create_task(server.serve(each, variant)) for each in fleet]
    answered = 0

    def first_answers() -> bool:
        nonlocal answered
        for each in fleet:
            each.take()
            if each.sent and each.free:
                each.answer(ANSWERS[variant](each.sent.pop(0)))
                answered += 1
        return answered == len(EVERYTHING) * proxies and all(each.free for each in fleet)

    await _until(first_answers)
    found = []
    gc.collect()
    gc.freeze()  # as it is: the collector would look through all streams in the middle of a round
    for _ in range(rounds):
        _WALK.count(1)
        began = time.thread_time()
        server.publish("edge", sequence.next(1000))
        await _until(lambda: fleet[-1].done is not None)
        turned = time.thread_time()
        for each in fleet:
            each.take()
        written = time.thread_time()
        # As they come off a socket: bytes of their own.
        answers = [bytes(bytearray(ANSWERS[variant](each.sent.pop()))) for each in fleet]
        _WALK.count(1)
        before = time.thread_time()
        for each, answer in zip(fleet, answers, strict=True):
            each.answer(answer)
        await _until(lambda: fleet[-1].free)
        found.append([turned - began, written - turned, time.thread_time() - before])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 (what it waits for happens in other turns of this loop)
            await asyncio.sleep(0)


def run(*, quick: bool) -> None:
    """Print the least of the rounds: what disturbs adds, and nothing takes away."""
    section("the server over streams without sockets, us of CPU per push+ACK (least of the rounds)")
    table = Table(("proxies", "variant", *STAGES, "sum"), widths=(10, 8, 10, 10, 10, 10))
    variants: tuple[Variant, ...] = ("delta", "sotw")
    logs.configure("error")
    for proxies in (100, 1000, 5000):
        for variant in variants:
            rounds = 20 if quick or proxies > 1000 else 100
            found = asyncio.run(measure(variant, proxies, rounds))
            each = [min(row[stage] for row in found) / proxies * 1e6 for stage in range(len(STAGES))]
            table.row(proxies, variant, *(f"{part:.1f}" for part in (*each, sum(each))))
