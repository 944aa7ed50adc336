"""Observations that are made when somebody asks."""

from __future__ import annotations

from datetime import UTC, datetime

from controlplane.evidence.observation import Observation
from controlplane.evidence.observed import Observed

T0 = datetime(2026, 3, 1, tzinfo=UTC)


class Maker:
    def __init__(self):
        self.asked = []

    def __call__(self, service, healthy):
        self.asked.append((service, healthy))
        return Observation(service, T0, T0, healthy=(("edge", "v1", 1),) if healthy else ())


def test_an_observation_is_made_once_for_all_who_ask_and_counts_are_not_kept():
    make = Maker()
    observed = Observed({"shop", "cart"}, {"shop"}, make)

    bare = [observed.counts("shop") for _ in range(2)]
    whole = [observed["shop"] for _ in range(2)]

    assert make.asked == [("shop", False), ("shop", False), ("shop", True)]
    assert [seen.healthy for seen in bare] == [(), ()]
    assert whole[0] is whole[1] is observed.counts("shop")
