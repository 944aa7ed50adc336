from __future__ import annotations

from collections import Counter
from itertools import islice

import xxhash

from controlplane.demo.users import ANONYMOUS_SHARE, HEAVIEST, population, visits


def test_users_and_visits_depend_on_the_seed_alone():
    assert population(300, seed=4) == population(300, seed=4)
    assert population(300, seed=4) != population(300, seed=5)
    users = population(300)
    first = [user.id for user, _ in islice(visits(users, seed=1), 500)]
    assert first == [user.id for user, _ in islice(visits(users, seed=1), 500)]


def test_ids_are_stable_names_and_different():
    users = population(2000)

    assert len({user.id for user in users}) == 2000


def test_some_users_are_heavy_but_none_decides_the_share():
    activity = sorted((user.activity for user in population(2000)), reverse=True)

    assert abs(sum(activity) - 1) < 1e-9
    assert sum(activity[:200]) > 0.35
    assert activity[0] < 1.5 * HEAVIEST


def test_beta_users_are_a_tenth_or_more_by_number_and_by_requests():
    for seed in range(20):
        users = population(2000, seed)

        assert sum(user.beta for user in users) >= 200
        assert 0.10 <= sum(user.activity for user in users if user.beta) <= 0.16


def test_beta_is_independent_of_the_bucket():
    users = population(4000)
    low = [user.beta for user in users if xxhash.xxh64_intdigest(f"salt:{user.id}".encode()) % 10_000 < 5000]

    assert abs(sum(low) / len(low) - 1 / 8) < 0.03


def test_one_request_in_twenty_has_no_identity():
    seen = Counter(bool(user.id) for user, _ in islice(visits(population(500)), 20_000))

    assert abs(seen[False] / 20_000 - ANONYMOUS_SHARE) < 0.01


def test_every_request_of_a_user_carries_the_same_identity_in_one_place():
    for user in population(100):
        by_header = f"\r\nx-user-id: {user.id}\r\n".encode()
        by_cookie = f"uid={user.id}".encode()
        assert {(by_header in r) + (by_cookie in r) for r in user.requests} == {1}
        assert all((b"beta=1" in r) == user.beta for r in user.requests)
