"""The command line: in this process for what speaks to a server, in one of its own for `serve`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import httpx
import pytest

from controlplane.cli import main
from controlplane.demo.ports import free_ports
from tests.waiting import PATIENCE, until_blocking

START = "import sys; from controlplane.cli import main; main()"


@dataclass
class Said:
    status: int
    out: str
    err: str

    @property
    def lines(self):
        """Everything that was said, by line."""
        return (self.out + self.err).splitlines()


@pytest.fixture
def turnout(capsys, monkeypatch):
    """Run a command in this process; ``server`` is passed on when it is given."""
    monkeypatch.delenv("TURNOUT_SERVER", raising=False)

    def run(*arguments, server=None):
        line = ["turnout", *map(str, arguments), *(["--server", server] if server else [])]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(ended.value.code or 0, said.out, said.err)

    return run


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", START, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def serving(folder, *more):
    """Serve on free ports; yield the address of the API. It must stop on SIGTERM, and without complaint."""
    xds, http = free_ports(2)
    at = ["--data", folder / "data", "--xds", f"127.0.0.1:{xds}", "--http", f"127.0.0.1:{http}"]
    process = command("serve", *at, "--interval", "1s", *more)
    server = f"http://127.0.0.1:{http}"

    def ready():
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{server}/readyz", timeout=PATIENCE, verify=False).status_code == 200

    try:
        until_blocking(lambda: process.poll() is not None or ready())
        yield SimpleNamespace(server=server, xds=xds, http=http, process=process)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def kit():
    return SimpleNamespace(command=command, serving=serving)
