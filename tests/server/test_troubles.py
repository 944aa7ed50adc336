"""What is refused at the ports is found by who looks for it."""

from unittest.mock import Mock

import pytest

from controlplane.server import troubles as module
from controlplane.server.troubles import LASTS, Troubles


@pytest.fixture(autouse=True)
def log(monkeypatch):
    """Return what is logged; other tests of the process say how loud logs are."""
    monkeypatch.setattr(module, "log", found := Mock())
    return found


def test_a_trouble_is_logged_when_it_begins_and_shown_until_it_was_not_seen_for_a_while(log):
    now = [0.0]
    troubles = Troubles(lambda: now[0])

    for _ in range(1000):
        troubles.add("statistics of", "10.0.0.1", "not an export")
    troubles.add("load reports of", "10.0.0.1", "no node id")
    shown = troubles.current()
    now[0] = LASTS + 1
    later = troubles.current()
    troubles.add("statistics of", "10.0.0.1", "again")

    assert shown == (
        "load reports of 10.0.0.1: refused: no node id",
        "statistics of 10.0.0.1: refused 1000 times: not an export",
    )
    assert later == ()
    said = [call.kwargs["why"] for call in log.warning.call_args_list]
    assert said == ["not an export", "no node id", "again"]
    assert troubles.counts == {"statistics of": 1001, "load reports of": 1}


def test_many_senders_take_bounded_memory():
    troubles = Troubles()

    for number in range(1000):
        troubles.add("statistics of", f"10.0.0.{number}", "not an export")

    assert len(troubles.current()) == 100
