"""Which proxies' own certificates are told of before they end."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.app.expiring import counts, of_certificates
from controlplane.xds.messages import Node
from controlplane.xds.validity import Validity
from controlplane.xds.view import Peer, StreamView

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DO = "renew, as who comes with one that has ended does not get in, and is seen nowhere"


def view(proxy, ends, begins=NOW - 80 * DAY, group="edge", since=NOW):
    valid = Validity(begins, ends) if ends is not None else None
    return StreamView(Peer("10.0.0.1:1", (), valid), "delta", since, Node(proxy), group, 1, False, ())


def told(*views, now=NOW):
    return list(of_certificates(views, now))


@pytest.mark.parametrize(
    ("lives", "left", "near"),
    [
        (90 * DAY, 7 * DAY, False),
        (90 * DAY, 7 * DAY - timedelta(seconds=1), True),
        (DAY, 5 * HOUR, False),
        (DAY, 4 * HOUR, True),
        (HOUR, timedelta(minutes=13), False),
    ],
)
def test_an_end_is_near_in_the_last_week_and_in_the_last_fifth_of_a_short_life(lives, left, near):
    one = view("edge-1", NOW + left, NOW + left - lives)

    assert bool(told(one)) is near
    assert counts([one]) == {"edge": near}


def test_what_a_proxy_has_got_since_it_connected_is_not_known_so_that_moment_counts():
    of_an_hour = view("edge-1", NOW + HOUR / 2, NOW - HOUR / 2)

    assert told(of_an_hour, now=NOW + HOUR) == []


def test_proxies_of_a_fleet_share_a_line_and_who_ends_first_is_named_first():
    many = [view(f"edge-{n}", NOW + n * HOUR) for n in range(7, 0, -1)]
    lone, calm, plain = view("w-1", NOW + DAY, group="west"), view("e-x", NOW + 30 * DAY), view("e-y", None)

    named, first = "edge-1, edge-2, edge-3, edge-4, edge-5 and 2 more", "own certificates: the first"
    assert told(*many, lone, calm, plain, now=NOW + 2 * HOUR) == [
        f"proxies {named} of fleet 'edge': {first} expired at 2026-03-01 01:00:00 UTC; {DO}",
        f"proxy w-1 of fleet 'west': own certificate expires at 2026-03-02 00:00:00 UTC; {DO}",
    ]
    assert counts([*many, lone, calm, plain]) == {"edge": 7, "west": 1}


def test_the_newest_stream_of_a_proxy_counts():
    old, new = view("edge-1", NOW + DAY), view("edge-1", NOW + 90 * DAY)

    assert told(old, new) == []
    assert counts([old, new]) == {"edge": 0}
