"""The noise of heavy users and failing hosts: its moments are what its parameters say."""

from dataclasses import replace

import numpy as np
import pytest

from controlplane.evidence import Agreement, check_split
from controlplane.simulation.loop import past
from controlplane.simulation.noise import Layout
from controlplane.simulation.traffic import CANARY, STABLE, Model, Traffic
from controlplane.simulation.users import HARSH, SCALES, Spells, Users, Wander, expected, length

SECONDS = 5.0
STRENGTHS = pytest.mark.parametrize("kind", [Users(), HARSH], ids=["users", "users-harsh"])
CALM = Users(
    volume=1e-9, retry=0, incident=1e12, apart=0, wander=(0, 0, 0), regimes=(0, 0), outage=1e12,
    campaign=1e12, unequal=0, collects=1e12, broken=0,
)  # fmt: skip


def layout(proxies=1):
    cells = np.arange(2 * proxies)
    parts = np.full(2 * proxies, 1 / proxies)
    return Layout(cells // 2, 0 * cells, cells % 2 == 1, parts, SECONDS)


def counts(kind, *, seed, share=0.1, intervals=720, requests=1000.0, errors=0.005):
    """Return requests and errors, each by interval and version."""
    rng = np.random.default_rng(seed)
    noise = kind.start(layout(), rng)
    found = np.zeros((intervals, 2, 2), np.int64)
    for row in found:
        arrivals, more, _ = noise.advance()
        row[0] = noise.requests(requests * arrivals * np.array([1 - share, share]), rng)
        row[1] = noise.errors(row[0], row[0] * np.minimum(errors * more, 1))
    return found


def dispersions(kind, releases=8):
    """Return variance over mean of a canary's errors in 5 s and in a minute, within releases."""
    found = np.array([counts(kind, seed=seed, intervals=480)[:, 1, 1] for seed in range(releases)])
    sums = (found, found.reshape(releases, -1, 12).sum(axis=2))
    return tuple(float(np.mean(x.var(axis=1, ddof=1) / np.maximum(x.mean(axis=1), 1e-9))) for x in sums)


def test_wander_forgets_each_scale_at_its_own_time():
    wander = Wander(0.5, 200, SCALES, SECONDS, np.random.default_rng(1))
    logs = np.log([wander.step() for _ in range(4000)])

    assert logs.std() == pytest.approx(0.5, rel=0.1)
    assert np.exp(logs).mean() == pytest.approx(1, abs=0.05)
    for lag in (1, 12, 120, 720):  # 5 s to an hour
        seen = np.corrcoef(logs[:-lag].ravel(), logs[lag:].ravel())[0, 1]
        assert seen == pytest.approx(np.exp(-lag * SECONDS / np.array(SCALES)).mean(), abs=0.07)


def test_spells_have_a_pareto_tail_and_take_their_share_of_time():
    spells = Spells(2000, 600, 20, SECONDS, np.random.default_rng(1))
    within, lengths, running = [], [], np.zeros(2000)
    for _ in range(2000):
        now = spells.step()
        ended = (running > 0) & (spells.new | (now == 0))
        lengths.extend(running[ended])
        running = np.where(spells.new | (now == 0), 0, running) + now * SECONDS
        within.append(now.mean())

    assert np.mean(within[500:]) == pytest.approx(spells.share, rel=0.05)
    assert spells.share == pytest.approx(length(20) / (length(20) + 600))
    assert np.mean(np.array(lengths) > 80) == pytest.approx(4**-1.3, rel=0.05)
    assert np.mean(np.array(lengths) > 320) == pytest.approx(16**-1.3, rel=0.15)


@STRENGTHS
def test_both_versions_have_the_rates_of_the_model_over_many_releases(kind):
    mild = replace(kind, breakage=(10, 20), severity=(3, 6))  # means of what is rarer do not settle
    found = np.array([counts(mild, seed=seed, share=0.5, intervals=120).sum(axis=0) for seed in range(80)])
    requests, errors = found.sum(axis=0)

    assert requests.sum() / (80 * 120 * 1000) == pytest.approx(1, abs=0.1)
    assert errors.sum() / requests.sum() == pytest.approx(0.005, rel=0.2)
    assert requests[1] == pytest.approx(requests[0], rel=0.05)
    more = np.mean(found[:, 1, 1] > found[:, 1, 0])
    assert more == pytest.approx(0.5, abs=0.17)  # 3 standard deviations of 80 fair coins


def test_without_its_parts_it_is_independent():
    short, long = dispersions(CALM)

    assert 0.9 < short < 1.1
    assert 0.85 < long < 1.15


def test_each_part_clusters_the_errors():
    retries, again = dispersions(replace(CALM, retry=0.9, again=0.7))
    hosts = dispersions(replace(CALM, incident=3600, hosts=4))[1]
    users = dispersions(replace(CALM, volume=0.3, limit=0.1, broken=0.1))[1]
    shared = dispersions(replace(CALM, wander=(0, 0.6, 0)))[1]

    # Chains of errors are geometric: (1 + m) / (1 - m) in endless windows, where m of the errors fail again.
    assert retries < again < (1 + 0.63) / (1 - 0.63)
    assert again > 2.5
    assert min(hosts, users, shared) > 1.3


def test_errors_are_clustered_as_the_documentation_says():
    (short, long), (shorter, longer) = dispersions(Users()), dispersions(HARSH)

    assert 1.0 < short < 1.5
    assert 1.5 < long < 6
    assert short < shorter < 8
    assert longer > 2 * long


def test_a_heavy_user_stays_with_the_canary_while_shares_grow():
    kind = replace(CALM, heavy=200, volume=0.5, session=1000)
    rng = np.random.default_rng(2)
    noise = kind.start(layout(), rng)
    seen = set()
    for share in (0.0, 0.05, 0.1, 0.5, 0.9):
        for _ in range(20):
            noise.advance()
            noise.requests(100_000 * np.array([1 - share, share]), rng)
        now = set(np.flatnonzero(noise._heavy.cells == 1))
        assert now >= seen
        assert len(now) == pytest.approx(200 * share, abs=25)
        seen = now


@STRENGTHS
def test_no_cell_has_more_errors_than_requests_nor_requests_at_share_0(kind):
    found = counts(kind, seed=1, share=0.0, requests=50, errors=0.3)

    assert (found[:, 1] <= found[:, 0]).all()
    assert not found[:, :, 1].any()


def test_an_incident_hits_all_requests_of_one_host_of_one_version():
    rng = np.random.default_rng(3)
    noise = replace(CALM, incident=20_000, severity=(40, 41), hosts=4).start(layout(), rng)
    factors = np.array([noise.advance()[1] for _ in range(5000)])

    sick, calm = factors.max(), np.median(factors)
    assert (factors.max(axis=0) > 5).all()
    assert sick / calm > (3 + 40) / 4 * 0.95
    assert np.mean((factors > 5).all(axis=1)) < np.mean((factors > 5).any(axis=1)) / 10


def test_latency_rises_with_arrivals_as_in_a_queue():
    rng = np.random.default_rng(4)
    noise = replace(CALM, wander=(0.3, 0, 0), load=0.6).start(layout(), rng)
    steps = [noise.advance() for _ in range(1000)]
    arrivals, latency = np.array([s[0] for s in steps]), np.array([s[2].mean() for s in steps])

    order = np.argsort(arrivals)
    assert (np.diff(latency[order]) >= -1e-9).all()
    low, high = latency[order][0], latency[order][-1]
    assert arrivals.max() > 1.5
    assert high / np.median(latency) > 2 > np.median(latency) / low


def test_a_slow_host_slows_the_tail_and_not_the_rest():
    rng = np.random.default_rng(5)
    noise = replace(CALM, hosts=12, collects=60).start(layout(), rng)
    pace = np.array([noise.advance()[2] for _ in range(500)])

    assert pace.shape == (500, 12, 2)
    assert np.mean(pace > 1.9) == pytest.approx(SECONDS / 60, rel=0.1)
    assert np.median(pace) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("noise", ["users", "users-harsh"])
def test_a_seed_gives_the_same_traffic(noise):
    def cells():
        traffic = Traffic(Model(noise=noise, segments={"beta": 0.2}, history=0), (), seed=7)
        return [traffic.step({"everyone": ("everyone", 0.3)})[0] for _ in range(50)]

    assert cells() == cells()
    assert any(cell.version == CANARY and tally.errors for seen in cells() for cell, tally in seen.cells)
    assert expected((1, np.e)) == pytest.approx(np.e - 1)


@pytest.mark.parametrize(("true", "wrong"), [(0.01, False), (0.0, True)])
def test_heavy_users_do_not_make_a_split_wrong_and_hide_none_that_is(true, wrong):
    # Of this seed one heavy user is among the first hundredth of users.
    traffic = Traffic(Model(noise="users-harsh", history=600, longest=600), (), seed=566)
    crowd, counts, found, far = past(traffic).crowd, {}, False, False
    while traffic.second < 300:
        for cell, tally in traffic.step({"everyone": ("everyone", true)})[0].cells:
            row = counts.setdefault(cell.proxy, [0, 0])
            row[cell.version == STABLE] += tally.requests
        whole = sum(map(sum, counts.values()))
        for row in counts.values():
            crowding = crowd.within(sum(row) / whole)
            found |= check_split(0.01, *row, crowding=crowding).agreement is Agreement.DISAGREES
            far |= check_split(0.01, *row).agreement is Agreement.DISAGREES

    assert far
    assert found is wrong
