"""For all tests."""

import pytest
from hypothesis import settings

from tests.app.receiver import Receiver
from tests.distribution import BothEnds, row

# A busy machine must not fail a property: no test asserts a time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    items[:] = row(items)


@pytest.hookimpl(optionalhook=True)  # there is none without pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    return BothEnds(config, log) if config.getoption("dist") in ("load", "loadgroup") else None


@pytest.fixture
def receiver():
    """A server on loopback that remembers what it got."""
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()
