"""Windows, blackouts and cron by the clocks of their zones, over changes of the clock."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.calendar import blacked_out, blackout_until, in_window, outside
from controlplane.policy.cron import parse_cron
from controlplane.policy.documents import Blackout, Window

BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)


def berlin(text, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def window(**fields):
    return Window.model_validate({"zone": "Europe/Berlin"} | fields)


def blackout(**fields):
    return Blackout.model_validate({"zone": "Europe/Berlin"} | fields)


# --- windows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "inside"),
    [
        ("2026-11-26T08:59", False),  # a Thursday
        ("2026-11-26T09:00", True),
        ("2026-11-26T15:59", True),
        ("2026-11-26T16:00", False),
        ("2026-11-27T12:00", False),  # Friday
        ("2026-07-06T09:00", True),  # summer time, a Monday
    ],
)
def test_a_window_is_what_the_wall_clock_shows(now, inside):
    office = window(days="mon-thu", **{"from": "09:00", "to": "16:00"})

    assert in_window(office, berlin(now)) is inside


@pytest.mark.parametrize(
    ("now", "inside"),
    [
        ("2026-11-27T21:59", False),
        ("2026-11-27T22:00", True),
        ("2026-11-28T01:59", True),  # Saturday, but Friday's night
        ("2026-11-28T02:00", False),
        ("2026-11-28T22:30", False),
        ("2026-11-27T01:00", False),  # Thursday's night is not in it
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(now, inside):
    assert in_window(window(days="fri", **{"from": "22:00", "to": "02:00"}), berlin(now)) is inside


def test_a_window_is_open_both_times_that_the_clock_shows_it():
    night = window(**{"from": "02:00", "to": "03:00"})

    assert in_window(night, berlin("2026-10-25T02:30", fold=0))
    assert in_window(night, berlin("2026-10-25T02:30", fold=1))
    assert not in_window(night, berlin("2026-03-29T03:00"))  # the hour that was skipped


def test_outside_of_all_windows_the_next_opening_is_told():
    both = (window(days="mon-thu", **{"from": "09:00", "to": "16:00"}), window(days="sat", to="12:00"))

    assert outside((), berlin("2026-11-27T17:00")) == ""
    assert outside(both, berlin("2026-11-28T11:00")) == ""
    assert "opens Sat 2026-11-28 00:00 Europe/Berlin" in outside(both, berlin("2026-11-27T17:00"))
    assert "opens Mon 2026-11-30 09:00 Europe/Berlin" in outside(both, berlin("2026-11-28T12:00"))


@given(st.integers(0, 400 * 24 * 60))
def test_the_opening_that_is_told_is_inside_and_nothing_before_it_is(minutes):
    office = window(days="tue,fri", **{"from": "23:30", "to": "01:15"})
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)

    why = outside((office,), now)

    if why:
        opening = berlin(why.split("opens ")[1][4:20].replace(" ", "T"))
        assert opening > now
        assert in_window(office, opening)
        assert not any(in_window(office, now + (opening - now) * n / 50) for n in range(50))


# --- blackouts --------------------------------------------------------------------------------------------


def test_a_blackout_between_two_local_times_has_its_begin_and_not_its_end():
    holidays = blackout(**{"from": "2026-12-23T18:00", "to": "2027-01-02T08:00"}, because="holidays")

    assert blackout_until(holidays, berlin("2026-12-23T17:59")) is None
    assert blackout_until(holidays, berlin("2026-12-23T18:00")) == berlin("2027-01-02T08:00")
    assert blackout_until(holidays, berlin("2027-01-02T08:00")) is None
    assert blacked_out((holidays,), berlin("2026-12-24T12:00")) == (
        "blackout (holidays) until Sat 2027-01-02 08:00 Europe/Berlin"
    )


def test_a_time_that_the_clock_repeats_is_blacked_out_both_times():
    night = blackout(**{"from": "2026-10-25T02:10", "to": "2026-10-25T02:50"})

    assert blackout_until(night, berlin("2026-10-25T02:20", fold=0))
    assert blackout_until(night, berlin("2026-10-25T02:20", fold=1))


def test_a_weekly_blackout_lasts_as_long_as_it_says_also_over_a_change_of_the_clock():
    weekend = blackout(cron="0 18 * * FRI", **{"for": "62h"})

    assert blackout_until(weekend, berlin("2026-11-27T17:59")) is None
    assert blackout_until(weekend, berlin("2026-11-27T18:00")) == berlin("2026-11-30T08:00")
    assert blackout_until(weekend, berlin("2026-11-30T08:00")) is None
    # On the last weekend of October it ends an hour earlier by the clock: an hour came twice.
    assert blackout_until(weekend, berlin("2026-10-24T12:00")) == berlin("2026-10-26T07:00")


def test_of_several_blackouts_the_one_that_ends_last_is_told():
    short = blackout(**{"from": "2026-12-24T00:00", "to": "2026-12-25T00:00"}, because="short")
    long = blackout(**{"from": "2026-12-24T10:00", "to": "2026-12-27T00:00"}, because="long")

    assert "(long)" in blacked_out((short, long), berlin("2026-12-24T12:00"))
    assert "(short)" in blacked_out((short, long), berlin("2026-12-24T09:00"))
    assert blacked_out((short, long), berlin("2026-12-28T00:00")) == ""


# --- cron -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "minutes", "hours"),
    [
        ("*/20 9-11 * * *", (0, 20, 40), (9, 10, 11)),
        ("5,50-52 0 * * *", (5, 50, 51, 52), (0,)),
        ("7/25 */12 * * *", (7, 32, 57), (0, 12)),
    ],
)
def test_lists_ranges_and_steps(text, minutes, hours):
    cron = parse_cron(text)

    assert (cron.minutes, cron.hours) == (minutes, hours)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0 0 * * sun", [1, 8, 15, 22, 29]),
        ("0 0 * * 0", [1, 8, 15, 22, 29]),
        ("0 0 * * 7", [1, 8, 15, 22, 29]),
        ("0 0 * * mon-tue", [2, 3, 9, 10, 16, 17, 23, 24, 30]),
        ("0 0 13 * *", [13]),
        ("0 0 13 * fri", [6, 13, 20, 27]),  # both are restricted: either is enough
        ("0 0 1-7 nov *", [1, 2, 3, 4, 5, 6, 7]),
        ("0 0 * dec *", []),
    ],
)
def test_days_as_cron_has_them(text, days):
    cron = parse_cron(text)

    november = [datetime(2026, 11, day, tzinfo=UTC).date() for day in range(1, 31)]
    assert [day.day for day in november if cron.on(day)] == days


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * *", "has 4 fields"),
        ("60 * * * *", "minute: '60' is not allowed; 0 to 59"),
        ("* * * foo *", "month: 'foo' is not allowed; 1 to 12 or jan to dec"),
        ("* * 0 * *", "day of month: '0'"),
        ("9-5 * * * *", "runs backwards"),
        ("*/0 * * * *", "'0' is not a step"),
        ("*/x * * * *", "'x' is not a step"),
        ("0 0 31 feb,apr *", "never happens"),
        ("0 0 ² * *", "is not allowed"),
    ],
)
def test_what_is_no_cron_is_refused_in_words(text, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        parse_cron(text)


def test_the_29th_of_february_happens():
    leap = parse_cron("0 12 29 2 *")

    assert leap.last(berlin("2028-03-01T00:00"), BERLIN, 3 * DAY) == berlin("2028-02-29T12:00")
    assert leap.last(berlin("2027-03-01T00:00"), BERLIN, 3 * DAY) is None


def test_a_time_that_the_clock_skips_happens_when_it_has_jumped_and_one_that_it_repeats_once():
    half_past_two = parse_cron("30 2 * * *")

    assert half_past_two.last(berlin("2026-03-29T12:00"), BERLIN, DAY) == berlin("2026-03-29T03:30")
    first = berlin("2026-10-25T02:30", fold=0)
    assert half_past_two.last(berlin("2026-10-25T02:45", fold=1), BERLIN, DAY) == first


@given(st.integers(0, 500 * 24 * 60), st.sampled_from(["0 18 * * fri", "*/7 3 1-9 */2 *", "30 2 * * *"]))
def test_the_last_time_is_found_as_by_looking_at_every_minute(minutes, text):
    """In a zone that never changes its clock, where every minute is a minute."""
    cron, now = parse_cron(text), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes, seconds=30)
    within = timedelta(hours=30)

    found = cron.last(now, ZoneInfo("UTC"), within)

    minute = now.replace(second=0)
    while now - minute < within:
        if cron.on(minute.date()) and minute.hour in cron.hours and minute.minute in cron.minutes:
            assert found == minute
            return
        minute -= timedelta(minutes=1)
    assert found is None
