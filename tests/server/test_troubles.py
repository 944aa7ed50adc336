"""What is refused at the ports is found by who looks for it."""

from structlog.testing import capture_logs

from controlplane.server.troubles import LASTS, Troubles


def test_a_trouble_is_logged_when_it_begins_and_shown_until_it_was_not_seen_for_a_while():
    now = [0.0]
    troubles = Troubles(lambda: now[0])

    with capture_logs() as logs:
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
    assert [line["why"] for line in logs] == ["not an export", "no node id", "again"]
    assert troubles.counts == {"statistics of": 1001, "load reports of": 1}


def test_many_senders_take_bounded_memory():
    troubles = Troubles()

    with capture_logs():
        for number in range(1000):
            troubles.add("statistics of", f"10.0.0.{number}", "not an export")

    assert len(troubles.current()) == 100
