"""For all tests."""

import pytest
from hypothesis import settings

from tests.app.receiver import Receiver

# A busy machine must not fail a property: no test asserts a time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def receiver():
    """A server on loopback that remembers what it got."""
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()
