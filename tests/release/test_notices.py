"""Who is told what: the event of each record, its words, and that they come with the change."""

from datetime import UTC, datetime

import pytest

from controlplane.policy.catalog import Catalog
from controlplane.policy.documents import Notify
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.release.notices import event_of, with_notices
from controlplane.release.ports import Change, Record, World
from controlplane.release.state import Phase, ReleaseState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WEB, SLACK = "https://example.com/hook", "$SLACK"


def release(*notify, phase=Phase.PROGRESSING):
    policy = PinnedPolicy(name="careful", steps=(PinnedStep(name="all", share=1_000_000),), notify=notify)
    return ReleaseState(
        name="r", attempt=2, service="shop", from_version="v1", to_version="v2", policy=policy, salt="s",
        phase=phase, created_at=NOW,
    )  # fmt: skip


def record(action, code="", **more):
    return Record(
        at=NOW, kind="decision", release="r", service="shop", action=action, step="all",
        reason="because <@all>", numbers={"code": code}, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "code", "phase", "event"),
    [
        ("start", "", Phase.PROGRESSING, "started"),
        ("advance", "passed", Phase.PROGRESSING, "advanced"),
        ("promote", "guarded", Phase.PROMOTED, "promoted"),
        ("rollback", "errors/beta", Phase.ROLLING_BACK, "rolling_back"),
        ("rollback", "", Phase.ROLLED_BACK, "rolled_back"),
        ("finish", "rolled-back", Phase.ROLLED_BACK, "rolled_back"),
        ("end", "reported", Phase.ENDING, None),  # told when everyone is back
        ("finish", "ended", Phase.ENDED, "ended"),
        ("hold", "ending", Phase.ENDING, None),
        ("hold", "testing", Phase.PROGRESSING, None),
        ("hold", "test-over", Phase.PROGRESSING, "asking"),
        ("switch", "", Phase.PROMOTED, "promoted"),
        ("rest", "rolled-back", Phase.RETRYING, "rolled_back"),
        ("retry", "retry", Phase.WAITING, "retried"),
        ("hold", "retrying", Phase.RETRYING, None),
        ("hold", "frozen", Phase.PROGRESSING, None),
        ("withdraw", "", Phase.ROLLED_BACK, "rolled_back"),
        ("switch", "", Phase.ROLLING_BACK, "rolling_back"),
        ("switch", "", Phase.ENDING, None),
        ("hold", "nack", Phase.PROGRESSING, None),  # until it has lasted
        ("held", "nack", Phase.PROGRESSING, "held"),
        ("cleared", "dwell", Phase.PROGRESSING, "cleared"),
        ("unsafe", "way-back-few", Phase.PROGRESSING, "held"),
        ("safe", "way-back-open", Phase.PROGRESSING, "cleared"),
        ("hold", "approval", Phase.PROGRESSING, "asking"),
        ("hold", "manual", Phase.WAITING, "asking"),
        ("hold", "dwell", Phase.PROGRESSING, None),
        ("hold", "propagate", Phase.PROGRESSING, None),
        ("proceed", "verified", Phase.PROGRESSING, None),
    ],
)
def test_each_record_is_told_by_its_event(action, code, phase, event):
    assert event_of(record(action, code), release(phase=phase)) == event


def test_only_what_was_asked_for_is_told_in_the_form_that_was_asked_for():
    notify = (Notify(webhook=WEB, on=("held", "promoted")), Notify(slack=SLACK, on=("held",)))
    world = World(1, Catalog(), releases={"r": release(*notify)})
    change = Change(records=(record("proceed"), record("held", "stale"), record("start")))

    event, slack = with_notices(change, world).messages

    assert (event.record, event.url, slack.record, slack.url) == (1, WEB, 1, SLACK)
    assert event.body["type"] == "turnout.release.held"
    assert event.body["source"] == "/turnout/releases/r"
    assert event.body["data"] == {
        "release": "r", "attempt": 2, "service": "shop", "from": "v1", "to": "v2", "policy": "careful",
        "emergency": False, "phase": "progressing", "step": "all",
        "actor": "turnout", "reason": "because <@all>",
    }  # fmt: skip
    assert slack.body == {
        "text": "*held*: shop v1 → v2 (release r, all)\nbecause &lt;@all&gt;"  # no mention of everybody
    }


def test_the_state_that_the_change_writes_is_told_not_the_one_before():
    before = release(Notify(webhook=WEB, on=("promoted",)))
    after = before.model_copy(update={"phase": Phase.PROMOTED})
    change = Change(releases=(after,), records=(record("promote"),))

    (message,) = with_notices(change, World(1, Catalog(), releases={"r": before})).messages

    assert message.body["data"]["phase"] == "promoted"
