"""For all tests."""

import pytest
from hypothesis import settings

from tests.app.receiver import Receiver
from tests.distribution import BothEnds, row

# A busy machine must not fail a property, as no test asserts a time. The gate says the same of the same code;
# what else there is to find, `make fuzz` and `pytest --hypothesis-profile=search` look for.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("gate")


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
