"""The page that goes through the protocol point by point."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "xds.md").read_text()


def test_every_point_is_there_and_every_test_that_is_named():
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }

    assert [int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == list(range(1, 78))
    assert set(re.findall(r"`(test_\w+)`", PAGE)) - defined == set()
