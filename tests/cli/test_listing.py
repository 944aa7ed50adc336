"""Tables for people and for pipes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from controlplane.cli.listing import Ladder, Listing, show

NAMES = ("release", "phase", "acked", "why")
LONG = "checkout-2026-11-27-hotfix-for-the-basket"
REASON = "the canary is slower in segment everyone: slower than 25 ms were 66.1 % of 852 canary requests"


def printed(view, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(view)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 240])
def test_names_are_whole_and_prose_is_folded_at_words(width):
    text = printed(Listing(NAMES, [(LONG, "rolled_back", "17957.99367a046d12", REASON)], ("acked",)), width)

    assert LONG in text
    assert "rolled_back" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert "".join(REASON.split()) in "".join(
        "".join(line[len(LONG) :].split()) for line in text.splitlines()
    )


def test_columns_that_may_be_spared_go_where_there_is_no_room_and_nowhere_else():
    listing = Listing(NAMES, [(LONG, "rolled_back", "17957.99367a046d12", REASON)], ("acked",))

    assert "17957.99367a046d12" not in printed(listing, 80)
    assert "17957.99367a046d12" in printed(listing, 120)


def test_what_fits_nowhere_is_folded_and_not_lost():
    text = printed(Listing(("name", "why"), [(LONG, "no")]), 20)

    assert LONG in "".join(line[:16].strip() for line in text.splitlines())


def test_heads_may_stand_twice():
    first, second = printed(Listing(("canary", "of", "baseline", "of"), [tuple("1234")]), 80).splitlines()

    assert first.split() == ["canary", "of", "baseline", "of"]
    assert second.split() == ["1", "2", "3", "4"]


def test_to_a_pipe_a_row_is_a_line_without_padding(capsys):
    show(Listing(NAMES, [(LONG, "rolled_back", "17957.99367a046d12", 20 * REASON), ("b", "c", "d", "-")]))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert 20 * REASON in lines[1]
    assert lines == [line.rstrip() for line in lines]


def test_a_step_of_a_ladder_stays_on_a_line():
    steps = [f"o step-{i} {i}0%" for i in range(1, 9)]

    lines = printed(Ladder([Text(step) for step in steps]), 40).splitlines()

    assert [step for line in lines for step in line.split("  ")] == steps
    assert all(len(line) <= 40 for line in lines)
