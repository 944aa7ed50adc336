"""The point of no return as a fact of a release, and the versions that are from before it."""

import pytest

from controlplane.policy.documents import After
from controlplane.release import groups, point
from controlplane.release.state import Phase


@pytest.fixture
def history(make):
    """Return releases of one service that were promoted one after the other: v1, v2 and so on."""

    def given(*irreversible):
        found = {}
        for number in range(1, 5):
            at = make.T0.replace(day=number)
            state = make.state(
                Phase.PROMOTED,
                name=f"r{number}",
                from_version=f"v{number}",
                to_version=f"v{number + 1}",
                created_at=at,
                ended_at=at.replace(hour=13),
            )
            passed = {"at": at, "because": "x"}
            found[state.name] = state.model_validate(
                state.model_dump(by_alias=True) | {"passed": passed if number in irreversible else None}
            )
        return found

    return given


@pytest.mark.parametrize(
    ("stable", "version", "between"),
    [
        ("v5", "v4", None),
        ("v5", "v3", None),
        ("v5", "v2", "r2"),
        ("v5", "v1", "r2"),
        ("v3", "v2", "r2"),
        ("v3", "v5", None),  # forward
        ("v3", "v9", None),  # of which nothing is known
        ("v2", "v1", None),  # somebody went back already
        ("v2", "v3", None),
    ],
)
def test_going_back_over_a_point_is_told_however_long_ago_it_was_passed(history, stable, version, between):
    found = point.behind(history(2), "shop", stable, version)

    assert (found and found.name) == between
    assert point.behind(history(), "shop", stable, version) is None
    assert point.behind(history(2), "other", stable, version) is None


def test_a_version_that_a_later_release_led_to_is_not_from_before(history):
    releases = history(1)
    back = releases["r4"].model_copy(update={"to_version": "v1"})  # v4 -> v1, on evidence

    assert point.behind(releases | {"r4": back}, "shop", "v4", "v1") is None


@pytest.mark.parametrize(
    ("stable", "failed", "unmet"),
    [
        ("v3", "", ""),
        ("v5", "", ""),  # others followed
        ("v2", "release 'r2', on which it depends, was undone: v2 of 'shop' is stable", "waits for what"),
        ("v9", "", "waits for what release 'r2' promoted: v9 of 'shop' is stable instead"),
    ],
)
def test_a_promotion_counts_while_it_or_what_followed_is_stable(make, history, stable, failed, unmet):
    after = (After(release="r2", reached="promoted"),)
    waits = make.state(Phase.WAITING, name="front-2", service="front", after=after)

    links = groups.links(waits, history(), {"shop": stable})

    assert links.failed == failed
    assert links.unmet.startswith(unmet)
    assert bool(links.unmet) is bool(unmet)
