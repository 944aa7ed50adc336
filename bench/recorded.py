"""Requests that real Envoys logged, as the traffic of many releases: who gets the canary is drawn anew.

The log is of one version alone. If versions are alike, a user's requests fail and last as they did whoever
answers; so each salt gives a good release, with the real bursts, tails, drift and heavy users. What it cannot
show: what happens to the hosts of one version alone.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.policy.documents import ANONYMOUS, EVERYONE
from controlplane.policy.latency import EDGES_MS
from controlplane.resources.buckets import bucket
from controlplane.simulation.traffic import CANARY, STABLE, START, Harm

# What Envoy is asked to write: start, proxy, status, milliseconds, and who the user is.
FORMAT = (
    "%START_TIME(%s.%3f)% %CEL(xds.node.id)% %RESPONSE_CODE% %DURATION% id=%REQ(X-USER-ID)% %REQ(COOKIE)%\n"
)
_LINE = re.compile(r"([0-9.]+) (\S+) ([0-9]+) ([0-9]+) id=(\S+) (.*)")
_EDGES = np.array(EDGES_MS)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """Requests in order of their end.

    Attributes:
        ends: Seconds since the first.
        proxies: Of each, as a position in ``names``.
        users: Of each, as a position in ``ids``; the first id is nobody's.
        beta: Whether each is of the segment beta.
        failed: Whether each failed.
        slower: How many edges of latency each exceeded.
    """

    ends: NDArray[np.float64]
    proxies: Ints
    users: Ints
    beta: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    slower: Ints
    names: tuple[str, ...]
    ids: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return float(self.ends[-1])

    @classmethod
    def read(cls, path: Path) -> Log:
        """Read what Envoys wrote in FORMAT, packed or not."""
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        rows = sorted(
            (float(m[1]) + int(m[4]) / 1000, m[2], int(m[3]), int(m[4]), _user(m[5], m[6]), "beta=1" in m[6])
            for m in map(_LINE.match, text.splitlines())
            if m
        )
        names = tuple(sorted({row[1] for row in rows}))
        ids = ("", *sorted({row[4] for row in rows} - {""}))
        proxy, user = {n: i for i, n in enumerate(names)}, {n: i for i, n in enumerate(ids)}
        return cls(
            np.array([row[0] - rows[0][0] for row in rows]),
            np.array([proxy[row[1]] for row in rows]),
            np.array([user[row[4]] for row in rows]),
            np.array([row[5] for row in rows]),
            np.array([row[2] >= 500 for row in rows]),
            np.searchsorted(_EDGES, [row[3] for row in rows]),
            names,
            ids,
        )


def _user(header: str, cookie: str) -> str:
    if header != "-":
        return header
    _, found, rest = cookie.partition("uid=")
    return rest.partition(";")[0] if found else ""


class Replayed:
    """A log as traffic, from a random time on and in a circle; see `Traffic` for what a step is."""

    def __init__(self, log: Log, interval: float, history: float, seed: int) -> None:
        self.log, self.second = log, -history
        self._interval = interval
        self._rounds = int(log.seconds / interval)
        self._at = int(np.random.default_rng(seed).integers(self._rounds))
        self._buckets = np.array([bucket(str(seed), user) for user in log.ids])
        self._cuts = np.searchsorted(log.ends, np.arange(self._rounds + 1) * interval)

    def step(
        self, shares: Mapping[str, tuple[str, float]], guarding: float | None = None, era: str = ""
    ) -> tuple[Observation, Harm]:
        """Return the next interval."""
        log, here = self.log, slice(*self._cuts[self._at : self._at + 2])
        self._at = (self._at + 1) % self._rounds
        label, share = shares.get(EVERYONE, (EVERYONE, 0.0))
        beta_label, beta_share = shares.get("beta", (label, share))
        nobody, beta = log.users[here] == 0, log.beta[here]
        share_of = np.where(beta, beta_share, share)
        canary = (self._buckets[log.users[here]] < share_of * 10_000) & ~nobody
        segment = np.where(nobody, 2, beta.astype(int))
        labels = (label, beta_label, ANONYMOUS)
        key = (log.proxies[here] * 3 + segment) * 2 + canary
        counted: dict[Cell, Tally] = {}
        for k in np.unique(key):
            of = key == k
            cell = Cell(log.names[k // 6], labels[k // 2 % 3], CANARY if k % 2 else STABLE)
            tally = _tally(log.failed[here][of], log.slower[here][of])
            counted[cell] = counted[cell] + tally if cell in counted else tally
        begin = START + timedelta(seconds=self.second)
        self.second += self._interval
        cells = tuple(sorted(counted.items(), key=lambda pair: pair[0]))
        return Observation("shop", begin, START + timedelta(seconds=self.second), cells, log.names), Harm()


def _tally(failed: NDArray[np.bool_], slower: Ints) -> Tally:
    exceeded = np.cumsum(np.bincount(slower, minlength=len(EDGES_MS) + 1)[::-1])[::-1][1:]
    return Tally(len(failed), int(failed.sum()), slower=tuple(exceeded.tolist()))
