"""Client errors of simulated traffic: at the rate of the model, and nothing else is drawn otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from controlplane.policy.documents import Condition
from controlplane.policy.documents.condition import AgainstClientErrors
from controlplane.simulation.families import FAMILIES
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import release
from controlplane.simulation.traffic import CANARY, STABLE, Model, Traffic
from controlplane.simulation.users import HARSH, Users
from tests.simulation.test_simulation import HALF, MODEL, QUICK

CLIENTS = replace(MODEL, client_errors=0.02)


def drawn(model, fault="none", *, seed=3, intervals=200, shares=HALF):
    traffic = Traffic(replace(model, history=0), (Fault.parse(fault),), seed)
    return [traffic.step(shares) for _ in range(intervals)]


def totals(steps, version):
    """Return requests, errors and client errors of a version."""
    cells = [tally for seen, _ in steps for cell, tally in seen.cells if cell.version == version]
    return np.sum([(t.requests, t.errors, t.client_errors) for t in cells], axis=0)


@pytest.mark.parametrize("noise", sorted(FAMILIES))
def test_they_change_nothing_else_in_any_noise(noise):
    def without(steps):
        return [[(cell, replace(tally, client_errors=0)) for cell, tally in seen.cells] for seen, _ in steps]

    model = Model(noise=noise)
    with_clients = drawn(replace(model, client_errors=0.05))

    assert without(with_clients) == without(drawn(model))
    assert totals(with_clients, CANARY)[2] > 0


@pytest.mark.parametrize("noise", ["iid", "mod", "harsh", "switching", "switching-harsh"])
def test_both_versions_have_the_rate_of_the_model(noise):
    model = Model(noise=noise, rps=500, client_errors=0.02, proxies=(1.0,) * 10)
    (requests, _, stable), (_, _, canary) = (
        totals(drawn(model, intervals=1500), version) for version in (STABLE, CANARY)
    )

    assert stable / requests == pytest.approx(0.02, rel=0.35)  # proxies' own rates do not average out
    assert canary == pytest.approx(stable, rel=0.1)


@pytest.mark.parametrize("kind", [Users(), HARSH], ids=["users", "users-harsh"])
def test_users_have_the_rate_of_the_model_over_many_releases(kind):
    mild = replace(kind, breakage=(10, 20), severity=(3, 6))  # means of what is rarer do not settle
    model = Model(noise=mild, client_errors=0.005, proxies=(1.0,))
    sums = np.sum(
        [
            [totals(drawn(model, seed=seed, intervals=120), version) for version in (STABLE, CANARY)]
            for seed in range(60)
        ],
        axis=0,
    )

    assert sums[:, 2].sum() / sums[:, 0].sum() == pytest.approx(0.005, rel=0.2)
    assert sums[1, 2] == pytest.approx(sums[0, 2], rel=0.2)


def test_a_heavy_user_who_is_refused_is_one_who_sends():
    """With nobody but heavy users no cell has more refused requests than it has requests without errors."""
    model = Model(noise=replace(HARSH, heavy=3, volume=0.9, limit=0.5), rps=20, errors=0.4, client_errors=0.9)
    cells = [tally for seen, _ in drawn(model) for _, tally in seen.cells]

    assert all(tally.errors + tally.client_errors <= tally.requests for tally in cells)
    quiet = [tally for tally in cells if tally.requests == tally.errors]
    assert all(tally.client_errors == 0 for tally in quiet)


@pytest.mark.parametrize(
    ("fault", "rate"),
    [("client_errors=10%", 0.118), ("client_errors=x5", 0.1), ("client_errors=100%", 0.995)],
)
def test_a_fault_refuses_requests_of_the_canary_alone_and_says_how_many(fault, rate):
    model = replace(CLIENTS, rps=2000)
    usual, steps = drawn(model), drawn(model, fault)
    stable, canary = totals(steps, STABLE), totals(steps, CANARY)

    assert stable.tolist() == pytest.approx(totals(usual, STABLE).tolist(), rel=0.05)
    assert canary[:2].tolist() == totals(usual, CANARY)[:2].tolist()
    assert canary[2] / canary[0] == pytest.approx(rate, rel=0.05)
    harmed = sum(harm.failed for _, harm in steps)
    assert harmed == pytest.approx(canary[2] - totals(usual, CANARY)[2], rel=0.05)


def test_a_service_without_any_can_have_the_fault():
    assert totals(drawn(MODEL, "client_errors=10%"), CANARY)[2] > 0
    assert totals(drawn(MODEL, "client_errors=10%"), STABLE)[2] == 0
    assert totals(drawn(MODEL, "client_errors=x5"), CANARY)[2] == 0


def test_what_a_restarted_proxy_loses_is_lost_of_them_too():
    lossy = totals(drawn(CLIENTS, "resets=40%"), CANARY)[2] + totals(drawn(CLIENTS, "resets=40%"), STABLE)[2]
    whole = totals(drawn(CLIENTS), CANARY)[2] + totals(drawn(CLIENTS), STABLE)[2]

    assert lossy == pytest.approx(0.8 * whole, rel=0.05)


@pytest.mark.parametrize(
    ("fault", "outcome", "metric"),
    [("none", "promoted", ""), ("client_errors=30%", "rolled back", "client errors/beta")],
)
def test_a_canary_goes_back_for_them_and_is_promoted_with_the_usual_ones(fault, outcome, metric):
    judged = Condition(client_errors=AgainstClientErrors())
    pinned = QUICK.model_copy(update={"conditions": (*QUICK.conditions, judged)})
    ended = release(pinned, CLIENTS, (Fault.parse(fault),), seed=5)

    assert ended.outcome == outcome
    assert metric in ended.metric


def test_a_refused_request_is_no_order():
    from tests.simulation.test_business import MODEL as SHOP
    from tests.simulation.test_business import totals as orders

    def ordered(fault):
        traffic = Traffic(replace(SHOP, history=0), (Fault.parse(fault),), 3)
        return orders([traffic.step(HALF) for _ in range(400)], CANARY)["orders"]

    assert ordered("client_errors=50%") == pytest.approx(0.5 * ordered("none"), rel=0.06)


def test_a_canary_that_is_cold_at_every_step_is_slow_whenever_its_share_grows():
    fault = Fault.parse("coldstart=x3@steps")
    traffic = Traffic(replace(MODEL, rps=2000, history=0), (fault,), 3)

    def late(share):
        shares = {"everyone": ("everyone", share)}
        found = []
        for _ in range(60):
            cells = [t for c, t in traffic.step(shares)[0].cells if c.version == CANARY]
            found.append(sum(t.slower[6] for t in cells) / sum(t.requests for t in cells))
        return np.mean(found[:5]), np.mean(found[-10:])

    for share in (0.1, 0.5):
        cold, warm = late(share)
        assert cold > 5 * warm
    again, _ = late(0.5)
    less, _ = late(0.2)
    assert max(again, less) < 2 * warm
    assert not fault.bad
    assert str(fault) == "coldstart=x3@steps"
