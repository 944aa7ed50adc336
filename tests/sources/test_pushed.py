"""Values that are pushed: sums, users that count once, keys, and that nothing is stored twice or lost."""

import pytest

from controlplane.evidence.observation import Measure
from controlplane.sources.pushed import MAX_KEYS, Pushed, Values, cell

V2 = cell("everyone", "v2")
PLACE = ("shop", "orders", V2)


def test_pushes_add_up_until_they_are_stored():
    pushed = Pushed()
    pushed.receive(PLACE, Values(10, 2), "", summed=False)
    pushed.receive(PLACE, Values(5, 1), "", summed=False)

    assert pushed.take() == {"shop": (Measure(V2, "orders", 3, 15),)}
    pushed.receive(PLACE, Values(1, 1), "", summed=False)
    pushed.commit()
    assert pushed.take() == {"shop": (Measure(V2, "orders", 1, 1),)}
    pushed.commit()
    assert pushed.take() == {}


def test_a_push_with_a_key_counts_once():
    pushed = Pushed()

    first = pushed.receive(PLACE, Values(10, 2), "a", summed=False)
    again = pushed.receive(PLACE, Values(10, 2), "a", summed=False)

    assert (first, again) == (True, False)
    assert pushed.take()["shop"][0].n == 10
    for number in range(MAX_KEYS):
        pushed.receive(PLACE, Values(1, 0), f"k{number}", summed=False)
    assert pushed.receive(PLACE, Values(1, 0), "a", summed=False)  # the oldest keys are forgotten


@pytest.mark.parametrize(("summed", "total"), [(False, 2), (True, 37)])
def test_a_user_counts_once_and_converts_once_while_sums_add_up(summed, total):
    pushed = Pushed()
    pushed.receive(PLACE, Values(users={"ada": 0, "bob": 12}), "", summed=summed)
    pushed.take()
    pushed.commit()
    pushed.receive(PLACE, Values(users={"ada": 20, "bob": 5, "eve": 0}), "", summed=summed)
    [measure] = pushed.take()["shop"]

    assert measure.n == 1  # eve is new
    assert measure.total + (12 if summed else 1) == total
