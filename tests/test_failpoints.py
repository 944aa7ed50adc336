"""Failpoints do nothing unless a server was told to end at one."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import controlplane
from controlplane.failpoints import POINTS, VARIABLE

CODE = """
import sys
from controlplane.failpoints import POINTS, arm, failpoint
arm(sys.argv[1])
for passing in range(3):
    for name in POINTS:
        print(passing, name, flush=True)
        failpoint(name)
"""


def passed(told="", environment=""):
    """Return the places that a process passes, and how it ended."""
    ran = subprocess.run(
        [sys.executable, "-c", CODE, told],
        capture_output=True, text=True, check=False, env={**os.environ, VARIABLE: environment},
    )  # fmt: skip
    return [line.split(" ") for line in ran.stdout.splitlines()], ran.returncode


def test_nothing_happens_unless_one_was_armed():
    lines, status = passed(environment="before-read:1")

    assert (len(lines), status) == (3 * len(POINTS), 0)


@pytest.mark.parametrize(("told", "last"), [("hook:2", ["1", "hook"]), ("after-push", ["0", "after-push"])])
def test_the_process_is_killed_at_the_passing_that_was_named(told, last):
    lines, status = passed(told)

    assert (lines[-1], status) == (last, -signal.SIGKILL)


@pytest.mark.parametrize("told", ["before-lunch:1", "hook:0", "hook:x", ":1"])
def test_serve_refuses_a_place_that_is_not_there(told, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", "from controlplane.cli import main; main()", "serve", "--data", tmp_path],
        capture_output=True, text=True, check=False, env={**os.environ, VARIABLE: told},
    )  # fmt: skip

    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith(f"turnout: {VARIABLE}: ")


def test_every_failpoint_is_somewhere_in_the_code():
    sources = Path(controlplane.__file__).parent.rglob("*.py")
    named = [name for file in sources for name in re.findall(r'failpoint\("([^"]+)"\)', file.read_text())]

    assert sorted(named) == sorted(POINTS)
