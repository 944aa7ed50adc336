"""The formulas for many blocks are those for one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.evidence import likelihood, rows

BLOCK = st.tuples(
    st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 10**5), st.integers(1, 10**5),
    st.floats(1e-4, 1e4),
)  # fmt: skip


@given(st.lists(BLOCK, min_size=1, max_size=8), st.lists(st.floats(1.3, 300), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_many_blocks_at_once_are_one_after_the_other(blocks, alternatives):
    grid = [1.25, *alternatives]
    events, others, canary, baseline, clusters = (
        np.array(column, dtype=float) for column in zip(*blocks, strict=True)
    )

    plain, least = rows.cautious(events, (canary, baseline), events + others, clusters, grid)

    for line, (k, other, n_c, n_b, s) in enumerate(blocks):
        one, other_one = likelihood.cautious(k, (n_c, n_b), k + other, s, grid)
        assert plain[line] == pytest.approx(one, rel=1e-8, abs=1e-7)
        assert least[line] == pytest.approx(other_one, rel=1e-8, abs=1e-7)


@given(st.floats(1e-6, 1e6))
def test_the_gamma_function_is_that_of_the_library(x):
    assert rows.lgamma(np.array([x]))[0] == pytest.approx(math.lgamma(x), rel=1e-11, abs=1e-11)


HARM = st.tuples(st.integers(0, 300), st.integers(1, 10**5), st.floats(1e-5, 0.5), st.floats(1e-3, 0.5))


@given(st.lists(HARM, min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_evidence_of_no_harm_is_the_same_for_many_blocks(blocks):
    k, n, rate, tolerated = (np.array(column, dtype=float) for column in zip(*blocks, strict=True))

    found = rows.no_harm(k, n, rate, tolerated)

    assert found == pytest.approx([likelihood.no_harm(*block) for block in blocks], rel=1e-9, abs=1e-9)
    plain = rows.no_harm_plain(k, n, rate, tolerated)
    assert plain == pytest.approx([likelihood.no_harm_plain(*block) for block in blocks], rel=1e-9)
