"""`turnout replay` of a release that a server runs."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from controlplane.cli import replay as replaying
from controlplane.cli.client import clock
from controlplane.evidence.observation import Reading
from controlplane.release.ports import Change, Record
from controlplane.web.asked import Act, Order
from tests.app.site import Clock, start, tick, until
from tests.documents import BRISK, FLEET, POLICY, RELEASE, SERVICE
from tests.waiting import until_blocking

DOCUMENTS = f"{FLEET}---\n{SERVICE}---\n{BRISK}"


def test_a_release_is_decided_again_as_it_was_decided(turnout, kit, tmp_path):
    documents = tmp_path / "documents.yaml"
    documents.write_text(DOCUMENTS)
    other = tmp_path / "other.yaml"
    other.write_text(BRISK.replace("quick", "other"))
    with kit.serving(tmp_path) as serving:
        server = serving.server
        assert turnout("apply", "-f", documents, server=server).status == 0
        early = turnout("replay", "shop-v2", server=server)
        assert turnout("release", "shop", "v2", "--policy", "quick", server=server).status == 0

        def recorded():
            said = turnout("replay", "shop-v2", "-o", "json", server=server)
            assert not said.status or "nothing was recorded" in said.err
            return None if said.status else said

        said = until_blocking(recorded)
        text = turnout("replay", "shop-v2", server=server)
        under = turnout("replay", "shop-v2", "--policy", other, server=server)

    assert early.status == 1
    assert "no release is named" in early.err
    found = json.loads(said.out)
    assert (found["policy"], found["same"], found["left_out"]) == ("quick", True, 0)
    assert found["decisions"][0]["action"] == "start"
    assert any("start" in line for line in text.lines)
    assert text.lines[-1].startswith("progressing after ")
    assert any("under policy other" in line for line in under.lines)


def test_a_name_without_files_is_refused(turnout):
    said = turnout("replay", "shop-v2", "--name", "careful")

    assert said.status == 2
    assert "--name: says which policy of the files that --policy gives" in said.err


METRICS = "metrics: {orders: {header: x-order, better: more}, carts: {header: x-cart, better: more}}\n"
QUERY = 'max(queue{version="$version"})'
STAT = "{stat: {name: upstream_rq_timeout, at_most: 20}}"
QUEUE = f"{{prometheus: {{name: queue, query: '{QUERY}', at_most: 10, every: 5s}}}}"
ORDERS = "{metric: {name: orders, at_least: 2%}}"


def policy(*conditions, name="quick"):
    conditions = ", ".join(("{latency: off}", "{client_errors: off}", *conditions))
    steps = "[{name: ten, everyone: 10%, for: 10m}, {name: all, everyone: 100%}]"
    text = f"kind: Policy\nname: {name}\nsteps: {steps}\nconditions: [{conditions}]\n"
    return f"{text}guard: {{for: 15s, hold_back: 2%}}\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store with a release that went back while all that conditions may rest on got worse."""
    folder = tmp_path_factory.mktemp("kept")

    async def run():
        clock = Clock()
        clock.now = datetime.now(UTC) - timedelta(hours=2)
        conditions = (
            STAT.replace("20", "1000000"),
            QUEUE.replace("10,", "1000,"),
            ORDERS.replace("2%", "0.1%"),
        )
        site = await start(folder / "data", clock, quick=policy(*conditions), shop=SERVICE + METRICS)
        site.traffic.orders = {"v1": 4, "v2": 4}
        site.traffic.grown = {("v1", "upstream_rq_timeout"): 0, ("v2", "upstream_rq_timeout"): 0}
        site.traffic.read = (Reading("queue", 3.0),)
        await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
        await tick(site, 12)
        site.traffic.orders = {"v1": 4, "v2": 1}
        site.traffic.grown = {("v2", "upstream_rq_timeout"): 9}
        site.traffic.read = (Reading("queue", 30.0),)
        await tick(site, 48)
        await site.plane.act("shop-v2", "rollback", Act(actor="ann"))
        await until(site, lambda world: world.releases["shop-v2"].ended)
        await site.store.commit(Change(cursors={"edge-1": None}))  # it is none of a real proxy's
        await site.store.close()

    asyncio.run(run())
    return folder


@pytest.mark.parametrize(
    ("condition", "title", "words"),
    [
        (STAT, "stat upstream_rq_timeout", "upstream_rq_timeout"),
        (QUEUE, "prometheus queue", "readings in a row beyond at most 10"),
        (ORDERS, "metric orders limit", "the limit is missed"),
        ("{metric: {name: orders, margin: 5%}}", "metric orders", "fewer metric orders on the canary"),
        ("{retries: {at_most: 1%}}", "retries", ""),
    ],
)
def test_a_condition_of_another_policy_is_decided_from_what_was_recorded(
    turnout, kit, kept, tmp_path, condition, title, words
):
    file = tmp_path / "other.yaml"
    file.write_text(policy(condition, name="other"))
    with kit.serving(kept) as serving:
        said = turnout("replay", "shop-v2", "--policy", file, "-o", "json", server=serving.server)

    found = json.loads(said.out)
    assert found["not_recorded"] == []
    judged = {v["metric"] for d in found["decisions"] for v in d["numbers"]["verdicts"]}
    assert judged == {"errors", title}
    reasons = [d["reason"] for d in found["decisions"] if d["action"] == "rollback"]
    assert [words in reason for reason in reasons] == [True] * bool(words)


def test_what_was_not_recorded_is_left_out_and_named(turnout, kit, kept, tmp_path):
    file, shop = tmp_path / "other.yaml", tmp_path / "shop.yaml"
    conditions = (
        QUEUE.replace("max(", "min("),
        QUEUE.replace("name: queue", "name: lag"),
        "{metric: {name: carts, margin: 5%}}",
    )
    file.write_text(policy(*conditions, name="other"))
    shop.write_text(f"{FLEET}---\n{SERVICE}{METRICS}")
    with kit.serving(kept) as serving:
        alone = turnout("replay", "shop-v2", "--policy", file, server=serving.server)
        both = ("replay", "shop-v2", "--policy", file, "--policy", shop)
        known = turnout(*both, server=serving.server)

    left_out = "not recorded, and taken as passed: prometheus queue, prometheus lag"
    assert f"{left_out}, metric carts" in alone.err
    assert known.err.splitlines() == [left_out]


def test_all_records_of_a_release_are_compared_however_many_there_are(turnout, kit, kept, monkeypatch):
    monkeypatch.setattr(replaying, "RECORDS", 2)  # in a page
    with kit.serving(kept) as serving:
        said = turnout("replay", "shop-v2", "-o", "json", server=serving.server)

    found = json.loads(said.out)
    assert len(found["decisions"]) > 4
    assert (said.status, found["same"]) == (0, True)


@pytest.mark.parametrize(("hours", "shown"), [(1, "12:00:00"), (30, "2026-03-01 12:00:00")])
def test_times_of_several_days_are_shown_with_their_dates(hours, shown):
    first = datetime(2026, 3, 1, 12, tzinfo=UTC)

    assert f"{first:{clock((first, first + timedelta(hours=hours)))}}" == shown


@pytest.fixture(scope="module")
def undone(tmp_path_factory):
    """A store with a release that a person started, that was promoted, and that was undone."""
    folder = tmp_path_factory.mktemp("undone")

    async def run():
        clock = Clock()
        clock.now = datetime.now(UTC) - timedelta(hours=2)
        site = await start(folder / "data", clock, order=RELEASE.replace("auto", "manual"))
        await tick(site, 3)
        await site.plane.act("shop-2", "advance", Act(actor="ann"))
        await until(site, lambda world: world.releases["shop-2"].ended)
        await site.plane.undo("shop", Act(actor="ann", reason="prices"))
        await site.store.commit(Change(cursors={"edge-1": None}))
        await site.store.close()

    asyncio.run(run())
    return folder


def test_a_release_that_a_person_started_starts_under_another_policy_too(turnout, kit, undone, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(POLICY.replace("quick", "other"))
    with kit.serving(undone) as serving:
        own = turnout("replay", "shop-2", server=serving.server)
        other = turnout("replay", "shop-2", "--policy", file, server=serving.server)
        told = turnout("replay", "shop-2", "--policy", file, "-o", "json", server=serving.server)

    assert own.lines[-1].startswith("promoted after ")
    assert (other.status, json.loads(told.out)["left_out"]) == (0, 0)
    assert json.loads(told.out)["outcome"] == "promoted"
    assert any(line.endswith("under policy other") for line in other.lines)


def test_another_policy_under_which_nothing_starts_has_tried_nothing(turnout, kit, kept, tmp_path):
    file = tmp_path / "shut.yaml"
    day = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
    file.write_text(f"{POLICY.replace('quick', 'shut')}windows: [{{days: {day}}}]\n")
    with kit.serving(kept) as serving:
        said = turnout("replay", "shop-v2", "--policy", file, server=serving.server)
        told = turnout("replay", "shop-v2", "--policy", file, "-o", "json", server=serving.server)

    assert (said.status, told.status) == (1, 1)
    assert "under policy shut it never starts: " in said.err
    assert json.loads(told.out)["outcome"] == "waiting"


def test_a_promotion_that_was_undone_is_none_to_who_waits_for_it(turnout, kit, undone):
    with kit.serving(undone) as serving:
        waits = [turnout("wait", "shop-2", "--for", goal, server=serving.server) for goal in GOALS]
        shown = turnout("get", "release", "shop-2", server=serving.server)
        listed = turnout("get", "releases", server=serving.server)

    assert [said.status for said in waits] == [1, 1, 0]
    for said in waits[:2]:
        assert "undo to v1 by ann: prices; `turnout retry shop-2` runs it again" in said.err
    assert "promoted (undone)" in shown.out
    assert "promoted (undone)" in listed.out
    assert "next     `turnout retry shop-2` runs it again" in shown.out


GOALS = ("promoted", "retired", "ended")


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def decision(seconds=0, reason="few", rate=0.1, outcome="not yet", action="hold", **numbers):
    verdicts = [{"metric": "errors", "segment": "everyone", "outcome": outcome, "numbers": {"rate": rate}}]
    return Record(
        at=NOW + timedelta(seconds=seconds), kind="decision", action=action, step="ten", reason=reason,
        numbers={"code": "not-yet", "verdicts": verdicts, **numbers},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("now", "then", "differs", "words", "figures"),
    [
        ([decision(cause="a", again=False)], [decision(cause="a", again=False)], 0, 0, 0),
        ([decision(reason="too few", cause="a")], [decision()], 0, 1, 0),
        ([decision(cause="a"), decision(5, cause="b", again=True)], [decision()], 0, 1, 0),
        ([decision(cause="a"), decision(5, cause="b", again=True)], [decision(cause="a")], 0, 1, 0),
        ([decision()], [decision(), decision(5, action="held")], 0, 1, 0),
        ([decision(rate=0.2, cause="a")], [decision()], 0, 0, 1),
        ([decision(cause="a"), decision(5, cause="a")], [decision()], 1, 0, 0),
        ([decision(outcome="pass")], [decision()], 0, 0, 1),
        ([decision(action="rollback")], [decision()], 2, 0, 0),
    ],
    ids=["same", "words", "older", "again", "told", "figures", "more", "outcome", "action"],
)
def test_another_version_decided_the_same_in_other_words_and_with_other_figures(
    now, then, differs, words, figures
):
    turns = [SimpleNamespace(moment=SimpleNamespace(at=NOW + timedelta(seconds=s))) for s in (0, 5)]

    found = replaying._compared(now, then, turns)

    assert (len(found.missing), found.words, len(found.figures)) == (differs, words, figures)


def test_figures_of_another_version_are_told_and_a_decision_that_is_another_one_fails(
    turnout, kit, kept, monkeypatch
):
    written = replaying._written
    monkeypatch.setattr(replaying, "_written", lambda *a: [other(r, rate=True) for r in written(*a)])
    with kit.serving(kept) as serving:
        figures = turnout("replay", "shop-v2", server=serving.server)
        told = turnout("replay", "shop-v2", "-o", "json", server=serving.server)
        monkeypatch.setattr(replaying, "_written", lambda *a: [other(r, code="quiet") for r in written(*a)])
        decided = turnout("replay", "shop-v2", server=serving.server)

    found = json.loads(told.out)
    assert (figures.status, told.status, found["same"]) == (0, 0, True)
    assert any(line.endswith("under its own policy: decided the same") for line in figures.lines)
    first = found["figures"][0]
    assert (first["figure"], first["then"]) == ("errors/everyone canary_rate", 0.75)
    assert f"the figures of {len(found['figures'])} decisions differ" in figures.err
    assert f"errors/everyone canary_rate: 0.75 then, {first['now']} now" in figures.err
    assert decided.status == 3
    assert "not as it was decided then: " in decided.err


def other(record, *, rate=False, code=""):
    """Return a record as another version might have written it."""
    numbers = record.numbers | ({"code": code} if code else {})
    if rate:
        rates = {"canary_rate": 0.75}
        numbers["verdicts"] = [v | {"numbers": v["numbers"] | rates} for v in numbers.get("verdicts", ())]
    return record.model_copy(update={"numbers": numbers})
