import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for world.py, which is no test
from world import GOOD, Traffic, World, past


@pytest.fixture(scope="session")
def known():
    """What two minutes of the stable version taught."""
    return past(Traffic(World(history=120), GOOD, seed=1))
