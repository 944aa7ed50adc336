"""What holds of a whole history: who was told and asked, and that the records alone lead to it."""

from __future__ import annotations

from collections import defaultdict

from controlplane.release.replay import replay

BEFORE = ("", "waiting")  # steps of records from before a release began


def told_once(heard, committed):
    """Check that each committed message came, under one id and in one form, and nothing else."""
    told = defaultdict(set)
    for each in heard:
        if "#" not in each.key:
            told[each.key].add(repr((each.url, each.body)))
    assert len(told) == committed, "each message, and none that was not committed"
    assert all(len(forms) == 1 for forms in told.values())


def asked_by_key(heard):
    """Check that each question has a key of its own, in all its attempts."""
    meant = {}
    for each in heard:
        if "#" in each.key:
            data = each.body["data"]
            what = (data["release"], data["attempt"], data["point"], data["step"], each.url)
            assert each.body["id"] == each.key
            assert meant.setdefault(each.key, what) == what


def decided_again(recording, records):
    """Check that a release comes to the same when it is decided again from what was recorded of it.

    ``records`` are all of the release.
    """
    if recording.origin is None:
        steps = {record.step for record in records if record.kind != "hook"}  # of a hook: what it is about
        assert steps <= {*BEFORE, "rolled_back"}, "it never began"
        return
    attempt = recording.origin.state.attempt
    mine = [r for r in records if (r.attempt, r.kind) == (attempt, "decision")]
    mine = [r for r in mine if r.step not in BEFORE or r.action == "start"]
    ends = next((i for i, r in enumerate(mine) if r.action in ("finish", "rest", "promote")), len(mine))
    decided = [r.model_dump(exclude={"number"}) for r in mine[: ends + 1]]
    taken = replay(recording.origin, recording.turns)
    again = [r.model_dump(exclude={"number"}) for each in taken for r in each.turn.records]
    assert again == decided, _difference(again, decided)


def _difference(again, decided):
    pairs = enumerate(zip(again, decided, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), None)
    if place is None:
        return f"{len(again)} decisions instead of {len(decided)}"
    return f"decision {place}: {again[place]} instead of {decided[place]}"
