"""How uneven windows are, of many at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.evidence.dispersion import Dispersion, shrunk
from controlplane.evidence.table import WIDTH

COUNTERS = WIDTH - 1
USUAL, CALM = np.full((1, COUNTERS), 0.01), np.ones((1, COUNTERS), dtype=bool)


def rows(*cells):
    """Rows of (requests, events), the events of all counters alike."""
    return np.array([[float(n), *[float(k)] * COUNTERS] for n, k in cells])


def compared(window, past, usual=USUAL, calm=CALM):
    return Dispersion.of(window[None], past[None], usual, calm)


def test_events_in_proportion_are_not_uneven_and_those_of_one_cell_are():
    past = rows((10_000, 100), (10_000, 100))

    even, uneven = compared(rows((500, 6), (500, 6)), past), compared(rows((500, 12), (500, 0)), past)

    assert even.squares[0, 0] == pytest.approx(0)
    assert uneven.squares[0, 0] == pytest.approx(72)
    assert uneven.expected[0, 0] == even.expected[0, 0] == pytest.approx(6)


def test_a_cell_is_compared_with_its_own_past():
    window = rows((500, 9), (500, 3))

    assert compared(window, rows((10_000, 300), (10_000, 100))).squares[0, 0] == pytest.approx(0, abs=0.1)


def test_a_counter_that_is_not_calm_teaches_nothing():
    calm = CALM.copy()
    calm[0, 0] = False

    found = compared(rows((500, 12), (500, 0)), rows((1, 0), (1, 0)), calm=calm)

    assert found.events[0, :2].tolist() == [0, 12]
    assert found.squares[0, 0] == found.expected[0, 0] == 0 < found.squares[0, 1]


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 900)), min_size=2, max_size=40),
    st.integers(1, 9),
)
def test_lines_of_zeros_change_no_bit(cells, more):
    window, past = rows(*cells), rows(*((9 * n, k) for n, k in cells))
    zeros = np.zeros((more, WIDTH))

    found = compared(window, past)
    longer = compared(np.concatenate((window, zeros)), np.concatenate((past, zeros)))

    assert longer.squares.tolist() == found.squares.tolist()
    assert longer.expected.tolist() == found.expected.tolist()


def test_a_window_weighs_at_most_its_freedom():
    found = compared(rows((500, 200), (500, 0)), rows((500, 100), (500, 100)), USUAL * 20)

    sums = found.added(np.zeros((1, 2, WIDTH)), np.ones((1, 1)), np.ones((1, 1)))

    assert sums[0, 1, 1] == 1.0 < found.expected[0, 0]
    assert sums[0, 0, 1] == pytest.approx(found.squares[0, 0] / found.expected[0, 0])


def test_a_ratio_of_nothing_is_what_was_assumed():
    assert shrunk(np.zeros((2, WIDTH)), 3.0, 10.0).tolist() == [3.0] * COUNTERS
