"""How many files the process may open, and what it says when they are not enough."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
from unittest.mock import Mock

import pytest

from controlplane.server import descriptors
from controlplane.server.descriptors import ENOUGH, Shortage, operators_share

ALLOW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from controlplane.server.descriptors import allow_many, say
say(allow_many())
print("soft", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "said"), [(200, 600, "about 550 at most"), (256, ENOUGH, "limit=")])
def test_as_many_as_the_system_allows_and_a_warning_if_they_are_few(soft, hard, said):
    done = subprocess.run(
        [sys.executable, "-c", ALLOW, str(soft), str(hard)],
        capture_output=True, text=True, check=True, env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip

    assert f"soft {hard}" in done.stdout
    assert said in done.stdout
    assert ("warning" in done.stdout) == (hard < ENOUGH)


@pytest.mark.parametrize(
    ("allowed", "share"), [(1024, 102), (20_000, 1000), (8, 1), (resource.RLIM_INFINITY, 1000)]
)
def test_operators_have_a_tenth_of_the_files_and_never_more_than_they_need(monkeypatch, allowed, share):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))

    assert operators_share() == share


async def test_a_shortage_is_said_once_and_not_for_each_connection(monkeypatch):
    loop, heard = asyncio.get_running_loop(), []
    handler = Shortage(1024)

    # Other tests of the process say how loud logs are.
    log = Mock()
    monkeypatch.setattr(descriptors, "log", log)

    for _ in range(1000):
        handler(loop, {"message": "", "exception": OSError(errno.EMFILE, "Too many open files")})

    assert [call.kwargs["limit"] for call in log.error.call_args_list] == [1024]
    loop.default_exception_handler = heard.append
    handler(loop, {"message": "another", "exception": ValueError("x")})
    assert [context["message"] for context in heard] == ["another"]
