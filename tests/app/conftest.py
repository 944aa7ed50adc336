"""A site and a receiver of messages for each test; the rest is in `site.py`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from controlplane.app import logs
from controlplane.policy.loading import load
from controlplane.release.ports import Change
from tests.app import site as sites
from tests.documents import FLEET, POLICY, RELEASE, SERVICE


@pytest.fixture
async def site(tmp_path):
    """A site with a fleet, a service and a policy, without a release."""
    made = await sites.start(tmp_path)
    yield made
    await made.store.close()


@pytest.fixture(scope="session")
def kit():
    logs.quiet()
    return SimpleNamespace(
        T0=sites.T0, FLEET=FLEET, SERVICE=SERVICE, POLICY=POLICY, RELEASE=RELEASE, INTERVAL=sites.INTERVAL,
        Clock=sites.Clock, Site=sites.Site, Traffic=sites.Traffic, files=sites.files, load=load,
        start=sites.start, Change=Change, tick=sites.tick, until=sites.until, plain=sites.plain,
    )  # fmt: skip
