"""A control plane without ports."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.app.plane import Plane
from controlplane.app.publish import Publisher
from controlplane.app.statistics import StreamStatistics
from controlplane.app.tick import Loop
from controlplane.sources.collector import Collector
from controlplane.sources.lrs import LoadReports
from controlplane.sources.pushed import Pushed
from controlplane.stores.sqlite import SqliteStore

INTERVAL = timedelta(seconds=5)


@pytest.fixture
async def plane(tmp_path):
    store = await SqliteStore(tmp_path).open()
    publisher, collector = Publisher(store), Collector(INTERVAL)
    pushed = Pushed()
    statistics = StreamStatistics(publisher.server, collector, LoadReports(INTERVAL), pushed=pushed)
    loop = Loop(store, statistics, publisher, INTERVAL)
    collector.restore(await loop.restore())
    made = Plane(store, loop, publisher, collector, pushed=pushed)
    publisher.publish(await store.world())
    made.store, made.loop = store, loop
    yield made
    await store.close()
