"""Names that we resolve for clients: followed while they are wanted, and the last good addresses stay."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import timedelta

import pytest

from controlplane.release.traffic import Resolved
from controlplane.sources.dns import NO_NAME, Resolver, system
from tests.waiting import until

SOON = timedelta(milliseconds=5)
NOBODY = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Names:
    """A resolver of the system: what each host answers now, an exception too; and how often it was asked."""

    def __init__(self, **hosts):
        self.hosts = hosts
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append((host, port))
        answer = self.hosts[host]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return ["10.9.9.9"]
        return answer


@contextlib.asynccontextmanager
async def following(names, *wanted):
    resolver = Resolver(names, SOON)
    resolver.want(wanted)
    task = asyncio.create_task(resolver.run())
    try:
        yield resolver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_addresses_are_kept_sorted_and_once():
    names = Names(a=["10.0.0.2", "::1", "10.0.0.1", "10.0.0.2", "fe80::1%eth0"])

    async with following(names, "a:80") as resolver:
        await until(lambda: resolver.answers)

    assert resolver.answers == {"a:80": Resolved(("10.0.0.1:80", "10.0.0.2:80", "[::1]:80"))}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (NOBODY, NO_NAME),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "temporary failure"),
        ([], "the answer has no address"),
        (["fe80::1%eth0"], "the answer has no address"),
        (UnicodeError("label too long"), "label too long"),
    ],
)
async def test_what_fails_or_is_empty_keeps_the_last_good_addresses_and_is_told(answer, problem):
    names = Names(a=["10.0.0.1"])

    async with following(names, "a:80") as resolver:
        await until(lambda: resolver.answers)
        names.hosts["a"] = answer
        await until(lambda: resolver.answers["a:80"].problem)
        kept = resolver.answers["a:80"]
        names.hosts["a"] = ["10.0.0.2"]
        await until(lambda: not resolver.answers["a:80"].problem)

    assert kept.addresses == ("10.0.0.1:80",)
    assert problem in kept.problem
    assert resolver.answers["a:80"] == Resolved(("10.0.0.2:80",))


async def test_a_name_that_never_was_has_no_address():
    async with following(Names(a=NOBODY), "a:80") as resolver:
        await until(lambda: resolver.answers)

    assert resolver.answers == {"a:80": Resolved((), NO_NAME)}


async def test_a_name_that_does_not_answer_delays_no_other():
    names = Names(slow=asyncio.Event(), b=["10.0.0.1"])

    async with following(names, "slow:80", "b:80") as resolver:
        await until(lambda: resolver.answers)
        seen = dict(resolver.answers)
        names.hosts["slow"].set()
        await until(lambda: len(resolver.answers) == 2)

    assert seen == {"b:80": Resolved(("10.0.0.1:80",))}


async def test_a_new_name_is_looked_up_at_once_and_an_old_one_no_more():
    names = Names(a=["10.0.0.1"], b=["10.0.0.2"])

    async with following(names, "a:80") as resolver:
        await until(lambda: resolver.answers)
        resolver.want(["b:80"])
        await until(lambda: resolver.answers.keys() == {"b:80"})
        names.asked.clear()
        await until(lambda: len(names.asked) > 2)

    assert {host for host, _ in names.asked} == {"b"}


async def test_only_a_change_of_addresses_is_one():
    names, moves = Names(a=["10.0.0.1", "10.0.0.2"], b=NOBODY), []

    async def count(resolver):
        async for _ in resolver.changes():
            moves.append(resolver.answers["a:80"].addresses)  # noqa: PERF401 - it never ends

    async with following(names, "a:80", "b:80") as resolver:
        task = asyncio.create_task(count(resolver))
        await until(lambda: moves)
        names.hosts["a"] = ["10.0.0.2", "10.0.0.1"]
        names.asked.clear()
        await until(lambda: len(names.asked) > 20)
        names.hosts["a"] = ["10.0.0.3"]
        await until(lambda: len(moves) > 1)
        task.cancel()

    assert moves == [("10.0.0.1:80", "10.0.0.2:80"), ("10.0.0.3:80",)]


async def test_the_system_knows_localhost_and_an_address_is_its_own():
    assert "127.0.0.1" in await system("localhost", 80)
    assert await system("::1", 80) == ["::1"]
