from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_picture_of_the_states_is_as_the_table_says():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "states.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
