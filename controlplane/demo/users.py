"""The users of the demo: who they are, how often they come, and what their requests look like."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

HOST = "shop.example.com"
ANONYMOUS_SHARE = 0.05  # of the requests
BETA_EVERY = 8  # one user of eight
EU_SHARE = 0.3
HEAVIEST = 0.01  # no user makes more than this share of the requests
_PATHS = ("/", "/products", "/products/17", "/search?q=track", "/cart")


@dataclass(frozen=True, slots=True)
class User:
    """One simulated user.

    Attributes:
        id: Stable identity; empty for those who do not say who they are.
        beta: Whether they joined the beta (they send the cookie ``beta=1``).
        activity: Their share of the requests that carry an identity, in 0..1.
        requests: What they may send, as bytes; the last one is a POST.
    """

    id: str
    beta: bool
    activity: float
    requests: tuple[bytes, ...]


def population(count: int = 2000, seed: int = 0) -> tuple[User, ...]:
    """Return ``count`` users, always the same for one seed.

    Activity is heavy-tailed (Pareto, exponent 1.3), capped at HEAVIEST. Beta users are one of each
    BETA_EVERY neighbours in activity: their share of the requests is near their share of the users, and
    has nothing to do with the hash of their ids. Half of the users are known by header, half by cookie.
    """
    rng = random.Random(f"users/{seed}")
    weights = sorted(rng.paretovariate(1.3) for _ in range(count))
    total = sum(weights)
    cap = max(HEAVIEST, 1 / count) * total
    weights = [min(weight, cap) for weight in weights]
    total = sum(weights)
    beta = {start + rng.randrange(min(BETA_EVERY, count - start)) for start in range(0, count, BETA_EVERY)}
    numbers = rng.sample(range(count), count)
    return tuple(
        _user(f"user-{numbers[rank]:05d}", rank in beta, weight / total, rng)
        for rank, weight in enumerate(weights)
    )


def visits(users: tuple[User, ...], seed: int = 0) -> Iterator[tuple[User, bytes]]:
    """Yield without end who sends which request next."""
    rng = random.Random(f"visits/{seed}")
    nobody = _user("", beta=False, activity=0.0, rng=rng)
    activity = [user.activity for user in users]
    while True:
        for user in rng.choices(users, weights=activity, k=1024):
            visitor = nobody if rng.random() < ANONYMOUS_SHARE else user
            yield visitor, visitor.requests[int(rng.random() * len(visitor.requests))]


def _user(name: str, beta: bool, activity: float, rng: random.Random) -> User:
    by_header = rng.random() < 0.5
    cookies = [f"theme={rng.choice(('dark', 'light'))}"]
    if beta:
        cookies.append("beta=1")
    if name and not by_header:
        cookies.append(f"uid={name}")
    rng.shuffle(cookies)
    lines = [f"host: {HOST}", f"cookie: {'; '.join(cookies)}"]
    lines.append(f"x-region: {'eu' if rng.random() < EU_SHARE else 'us'}")
    if name and by_header:
        lines.append(f"x-user-id: {name}")
    head = "\r\n".join(lines)
    gets = tuple(f"GET {path} HTTP/1.1\r\n{head}\r\n\r\n".encode() for path in _PATHS)
    post = f"POST /cart HTTP/1.1\r\n{head}\r\ncontent-length: 8\r\n\r\nitem=17\n".encode()
    return User(name, beta, activity, (*gets, post))
