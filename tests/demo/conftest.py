from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests import waiting


@pytest.fixture
def edge() -> Callable[..., str]:
    """The bootstrap of a static Envoy that splits between v1 and v2, ``share`` in 10000 to v2."""

    def build(listener: int, v1: int, v2: int, share: int = 0) -> str:
        text = (Path(__file__).parent / "edge.yaml").read_text()
        for word, value in {
            "LISTENER": listener,
            "V1_PORT": v1,
            "V2_PORT": v2,
            "SHARE": share,
            "REST": 10_000 - share,
        }.items():
            text = re.sub(rf"\b{word}\b(?! in)", str(value), text)
        return text

    return build


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Wait for a condition."""
    return waiting.until
