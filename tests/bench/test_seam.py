"""The bench without sockets: all of its clients are of one peer and begin at once."""

from __future__ import annotations

import asyncio

from bench import seam
from controlplane.server.limits import Limits


def test_more_clients_begin_at_once_than_may_be_silent():
    proxies = Limits().silent_per_peer + 1

    (stages,) = asyncio.run(seam.measure("delta", proxies, 1))

    assert len(stages) == len(seam.STAGES)
    assert all(seconds > 0 for seconds in stages)
