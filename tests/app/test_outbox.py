"""Notifications over real HTTP: at least once, with one id, and nothing lost over a restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controlplane.app.outbox import TRIES, Outbox, pause
from controlplane.app.posting import Poster, poster_client
from controlplane.release.ports import Change, Message, Record
from controlplane.stores.sqlite import SqliteStore
from controlplane.web.asked import Act, Order, Switch
from tests.waiting import PATIENCE

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENT = {"specversion": "1.0", "type": "turnout.release.held", "data": {}}


class Desk:
    def __init__(self, folder):
        self.folder, self.now = folder, T0

    async def open(self):
        self.store = await SqliteStore(self.folder).open()
        self.outbox = Outbox(self.store, lambda: self.now)

    async def write(self, *messages):
        record = Record(at=T0, kind="decision", action="hold", reason="x")
        await self.store.commit(Change(records=(record,), messages=messages))

    async def send(self):
        async with poster_client() as client:
            await self.outbox.send(Poster(client, {"CHAT": self.chat}))
        return await self.store.waiting()


@pytest.fixture
async def desk(tmp_path, receiver):
    made = Desk(tmp_path)
    made.chat = receiver.url
    await made.open()
    yield made
    await made.store.close()


async def test_a_message_is_sent_once_and_then_forgotten(desk, receiver):
    await desk.write(Message(0, receiver.url, EVENT), Message(0, "$CHAT", {"text": "hi"}))

    assert await desk.send() == ()
    assert await desk.send() == ()

    by_type = {kind: (key, body) for key, kind, body in receiver.got}
    assert len(receiver.got) == 2
    key, body = by_type["application/cloudevents+json"]
    assert body == EVENT | {"id": key}
    assert by_type["application/json"][1] == {"text": "hi"}
    assert len({key for key, _, _ in receiver.got}) == 2


async def test_a_message_that_is_not_taken_is_sent_again_with_the_same_id(desk, receiver):
    receiver.answers = [500, 302]
    await desk.write(Message(0, receiver.url, EVENT))

    (first,) = await desk.send()
    assert (first.tries, first.error) == (1, "answered 500")
    assert "answered 500" in next(iter(desk.outbox.failures.values()))
    await desk.send()
    assert len(receiver.got) == 1  # not due yet
    desk.now += timedelta(seconds=2)
    (second,) = await desk.send()
    assert second.due - desk.now == timedelta(seconds=2)
    desk.now += timedelta(seconds=5)
    assert await desk.send() == ()

    assert len({key for key, _, _ in receiver.got}) == 1
    assert len(receiver.got) == 3
    assert desk.outbox.failures == {}


async def test_a_restart_before_the_answer_sends_it_again_and_loses_nothing(desk, receiver):
    await desk.write(Message(0, receiver.url, EVENT))
    ((before),) = await desk.store.waiting()
    await desk.store.close()

    await desk.open()
    await desk.send()

    assert [key for key, _, _ in receiver.got] == [before.id]


async def test_a_change_that_is_not_committed_tells_nothing(desk, receiver, monkeypatch):
    def broken(*_):
        raise OSError("no")

    monkeypatch.setattr("controlplane.stores.rows.write_memory", broken)
    with pytest.raises(OSError, match="no"):
        await desk.write(Message(0, receiver.url, EVENT))

    assert await desk.send() == ()
    assert receiver.got == []


@pytest.mark.parametrize(
    ("url", "error"), [("$NOWHERE", "has no NOWHERE"), ("http://127.0.0.1:1/", "connect"), ("http://[/", "")]
)
async def test_an_address_that_does_not_work_is_named_and_kept(desk, url, error):
    await desk.write(Message(0, url, EVENT))

    (message,) = await desk.send()

    assert error in message.error


async def test_a_switch_that_leaves_a_release_alone_tells_nobody_of_it(tmp_path, kit):
    told = "notify: [{webhook: 'https://example.com', on: [rolling_back]}]\n"
    site = await kit.start(tmp_path, quick=kit.POLICY + told)
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await kit.until(site, lambda world: world.releases["shop-v2"].at == "ten")
    await site.plane.act("shop-v2", "rollback", Act(actor="ann"))

    await site.plane.switch("shop", Switch(version="v1", actor="ann"))

    (message,) = await site.store.waiting()
    assert (message.body["data"]["actor"], message.body["data"]["reason"]) == ("ann", "")
    await site.store.close()


async def test_what_nobody_takes_for_days_is_given_up(desk, receiver):
    receiver.answers = [500, 500, 500]
    await desk.write(Message(0, receiver.url, EVENT))
    (message,) = await desk.send()
    for tries, left in ((TRIES - 1, 1), (TRIES, 0)):
        await desk.store.postponed(replace(message, tries=tries, due=desk.now))
        assert len(await desk.send()) == left

    assert timedelta(days=2.9) < sum(map(pause, range(TRIES)), timedelta(0)) < timedelta(days=3.1)


async def test_a_clock_that_jumps_neither_gives_a_message_up_nor_holds_it_back(desk, receiver):
    receiver.answers = [500] * 3
    await desk.write(Message(0, receiver.url, EVENT))
    for jump in (timedelta(days=3650), timedelta(days=-3650), -timedelta(hours=2)):
        desk.now += jump
        assert len(await desk.send()) == 1

    desk.now += timedelta(days=-1)
    assert await desk.send() == ()
    assert len(receiver.got) == 4


@pytest.mark.parametrize("url", ["chat", "http://", "http://[::1", "http://localhost:99999"])
async def test_an_address_of_the_environment_that_is_none_is_told(url):
    async with poster_client() as client:
        answered = await Poster(client, {"CHAT": url}).post("$CHAT", {}, "key", PATIENCE)

    assert (answered.status, answered.error) == (None, "is not an address")
