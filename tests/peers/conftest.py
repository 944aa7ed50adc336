from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.peers import translate

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture
def imported():
    """Translate one example: our documents by kind and name, and the notes as lines."""

    def of(name: str):
        found = translate({name: (EXAMPLES / name).read_text()}, "edge")
        return {(d["kind"], d["name"]): d for d in found.documents}, [str(note) for note in found.notes]

    return of
