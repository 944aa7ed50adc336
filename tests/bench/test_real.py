"""What the bench of real releases stands on: logs read as traffic, and a service that is noisy."""

import gzip
import random
import time

import numpy as np
import pytest

from bench import noisy
from bench.noisy import Noisy
from bench.real import ladder
from bench.recorded import Log, Replayed
from controlplane.demo.fault import Fault
from controlplane.demo.users import population
from controlplane.simulation.loop import end, follow
from controlplane.simulation.traffic import CANARY, STABLE

HALF = {"everyone": ("everyone", 0.5)}


def written(seconds, rps=50, errors=0.01):
    rng = random.Random(1)
    lines = []
    for i in range(seconds * rps):
        user, beta = rng.randrange(300), rng.randrange(300)
        who = f"id=user-{user:05d} theme=dark" if user % 2 else f"id=- uid=user-{user:05d}; theme=dark"
        who = "id=- theme=dark" if rng.random() < 0.05 else who + "; beta=1" * (beta % 8 == 0)
        code = 500 if rng.random() < errors else 200
        lines.append(f"{1000 + i / rps:.3f} edge-{1 + i % 2} {code} {rng.choice((20, 60, 450))} {who}")
    return "\n".join([*lines, "a line that is broken off"])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "requests.log.gz"
    path.write_bytes(gzip.compress(written(600).encode()))
    return Log.read(path)


def test_a_log_keeps_who_asked_and_how_it_went(tmp_path):
    path = tmp_path / "requests.log"
    path.write_text(
        "10.500 edge-1 503 60 id=ann beta=1\n"
        "10.000 edge-2 200 20 id=- theme=dark; uid=bob; beta=1\n"
        "10.100 edge-2 200 700 id=- theme=dark\n"
    )

    found = Log.read(path)

    assert found.ids == ("", "ann", "bob")
    assert [found.ids[u] for u in found.users] == ["bob", "ann", ""]
    assert found.ends == pytest.approx([0, 0.54, 0.78])
    assert found.failed.tolist() == [False, True, False]
    assert found.beta.tolist() == [True, True, False]
    assert found.slower.tolist() == [2, 4, 12]  # beyond 10, 50 and 500 ms, as Envoy's buckets count
    assert [found.names[p] for p in found.proxies] == ["edge-2", "edge-1", "edge-2"]


def test_every_request_is_counted_once_and_nobody_without_a_name_gets_the_canary(log):
    source = Replayed(log, 1.0, 60.0, seed=3)
    seen = [source.step(HALF)[0] for _ in range(int(log.seconds))]

    tallies = [pair for observation in seen for pair in observation.cells]
    assert sum(t.requests for _, t in tallies) == pytest.approx(len(log.ends), abs=50)
    assert sum(t.errors for _, t in tallies) == pytest.approx(log.failed.sum(), abs=5)
    assert sum(t.slower[10] for _, t in tallies) == pytest.approx((log.slower > 10).sum(), abs=50)
    assert {c.version for c, _ in tallies if c.segment == "anonymous"} == {STABLE}
    canary = sum(t.requests for c, t in tallies if c.version == CANARY)
    assert canary / (0.95 * len(log.ends)) == pytest.approx(0.5, abs=0.1)
    assert seen[0].fresh == log.names
    assert seen[0].end == seen[1].start


def test_a_seed_draws_the_same_users_and_shares_only_grow(log):
    def canaries(share, seed):
        source = Replayed(log, 5.0, 0.0, seed)
        seen = [source.step({"everyone": ("everyone", share)})[0] for _ in range(20)]
        return np.array([sum(t.requests for c, t in o.cells if c.version == CANARY) for o in seen])

    assert (canaries(0.1, 5) == canaries(0.1, 5)).all()
    assert (canaries(0.5, 5) >= canaries(0.1, 5)).all()
    assert (canaries(0.5, 5) != canaries(0.5, 6)).any()


def test_a_release_runs_on_a_log(log):
    ended = end(ladder(), follow(ladder(), Replayed(log, 1.0, 60.0, 1), log.names, 1.0, 900.0))

    assert ended.outcome == "promoted"


def test_the_noisy_service_fails_in_bursts_and_waits_in_pauses(monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(noisy.time, "monotonic", lambda: now[0])
    service = Noisy("v1", seed=4)
    heads = [user.requests[0] for user in population(500)]
    slowest, failed = [], []
    for second in range(600):
        now[0] += 1
        answers = [service.answer(heads[(second * 50 + i) % 500]) for i in range(50)]
        slowest.append(min(seconds for seconds, _ in answers))
        failed.append(sum(b"500 Internal" in response for _, response in answers))

    errors = np.array(failed)
    assert 0.003 < errors.sum() / 30_000 < 0.02
    assert errors.var() / errors.mean() > 2
    assert sum(s > 0.03 for s in slowest) > 5
    assert service.injected == errors.sum()


def test_the_noisy_service_obeys_faults():
    service = Noisy("v2", seed=4)
    service.inject(Fault.parse("errors=100%"))

    assert b"x-sample-injected: errors" in service.answer(population(1)[0].requests[0])[1]
