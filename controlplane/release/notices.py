"""What is worth telling somebody, and in which words: notifications of a change, made with its records.

They are written in the change's own transaction, so nothing is told that did not happen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from controlplane.policy.documents import Event, Point
from controlplane.release import ending, hooks, story
from controlplane.release.holding import ASKING
from controlplane.release.hooks import cloud_event
from controlplane.release.ports import Change, Json, Message, Record, World
from controlplane.release.state import Phase, ReleaseState

# What a record's action is called in a notification.
EVENTS: Mapping[str, Event] = {
    "advance": "advanced",
    "cleared": "cleared",
    "confirm": "rolled_back",  # told as held until then
    "cross": "advanced",
    "finish": "rolled_back",
    "freeze": "frozen",
    "guard": "guarding",
    "held": "held",
    "order": "ordered",
    "pause": "paused",
    "promote": "promoted",
    "rest": "rolled_back",  # and starts again after a while
    "resume": "resumed",
    "retry": "retried",
    "rollback": "rolling_back",
    "safe": "cleared",
    "start": "started",
    "unsafe": "held",  # the way back; it goes on meanwhile where nothing grows
    "step-back": "stepped_back",
    "withdraw": "rolled_back",  # it had not started
}
SWITCHED: Mapping[Phase, Event] = {Phase.PROMOTED: "promoted", Phase.ROLLING_BACK: "rolling_back"}


def with_notices(change: Change, world: World) -> Change:
    """Return the change with a message to everyone whom the releases' policies want told."""
    states = dict(world.releases) | {state.name: state for state in change.releases}
    messages = tuple(
        message
        for position, record in enumerate(change.records)
        if record.release in states
        for message in _messages(position, record, states[record.release])
    )
    return replace(change, messages=messages)


def event_of(record: Record, state: ReleaseState) -> Event | None:
    """Return what a record means to people, or None if it is nothing to tell.

    That everyone is back is told once it is confirmed.
    """
    event = _event(record, state)
    return "held" if event in ("rolled_back", "ended") and state.unconfirmed else event


def _event(record: Record, state: ReleaseState) -> Event | None:
    if record.action == "hold":
        return "asking" if record.numbers.get("code") in ASKING else None
    if record.action == "rollback" and state.ended:
        return "rolled_back"  # it had no traffic
    if record.action == "switch":
        return SWITCHED.get(state.phase) if not state.undone else None
    if record.action in ("finish", "confirm") and state.phase is Phase.ENDED:
        return "ended"
    return EVENTS.get(record.action)


def _messages(position: int, record: Record, state: ReleaseState) -> Iterator[Message]:
    event = event_of(record, state)
    for point in _points(record, event):
        for call in hooks.calls(state, point, record.step):
            yield Message(record=position, url=call.url, body=hooks.body(state, call, record.at))
    for notify in state.policy.notify:
        if event in notify.on:
            form = _slack if notify.slack else _cloud_event
            yield Message(record=position, url=notify.url, body=form(event, _caused(record, state), state))


def _caused(record: Record, state: ReleaseState) -> Record:
    """Return a record as people are told of it: that everyone is back says nothing without what led to it."""
    if record.action not in ("confirm", "finish", "rest"):
        return record
    return record.model_copy(update={"reason": story.why(state)})


def _points(record: Record, event: Event | None) -> Iterator[Point]:
    """Yield the points at which hooks are told of a record, and nobody waits for an answer.

    Each end of an attempt is told once: who calls a retry off was told of the rollback. A failure is told
    with what it led to; what waits for others of its group first is told when it goes back.
    """
    told = record.step == Phase.RETRYING and record.action != "confirm"
    if event in ("promoted", "rolled_back", "ended") and not told:
        yield "end"
    if "failure" in record.numbers and record.action != "doom":
        yield "failure"


def _cloud_event(event: str, record: Record, state: ReleaseState) -> Json:
    """Return an event for a webhook; its ``id`` is given by the store."""
    told: dict[str, object] = {"step": record.step, "actor": record.actor, "reason": record.reason}
    if state.result:
        told["result"] = ending.figures(state.result)
    return cloud_event(state, f"release.{event}", record.at, **told)


def _slack(event: str, record: Record, state: ReleaseState) -> Mapping[str, object]:
    what = f"{state.service} {state.from_version} → {state.to_version}"
    by = "" if record.actor == "turnout" else f" by {record.actor}"
    event = f"EMERGENCY {event}" if state.policy.emergency else event
    head = f"*{event.replace('_', ' ')}*{by}: {what} (release {state.name}, {record.step})"
    words = f"{head}\n{record.reason}" if record.reason else head
    # Slack's own marks; names and reasons come from elsewhere and must not become links or mentions.
    return {"text": words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
