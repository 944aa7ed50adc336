"""The policy folder into the store: at rest, whole, and only changes that were seen to happen."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from controlplane.app.folder import FolderError, read_folder
from controlplane.app.plane import Plane
from controlplane.policy.loading import Files, load
from controlplane.policy.problems import Problem
from controlplane.policy.settling import Settling, whole
from controlplane.web.port import RefusedError

log = structlog.get_logger()
ACTOR = "policy folder"


class Importer:
    """Scans the folder; scanning is cheap and, unlike notifications, never goes deaf."""

    def __init__(self, folder: Path, plane: Plane, every: float = 0.5) -> None:
        self._folder = folder
        self._plane = plane
        self._every = every
        self._settling = Settling()
        self._taken: Files | None = None  # as they were when they were last whole
        self._differs_at = 0  # generation from which the folder differs without anybody having said why

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            try:
                # Not the time of day: a clock that jumps must not make a folder look at rest.
                await self.scan(datetime.fromtimestamp(time.monotonic(), UTC))
            except Exception:
                # Whatever lies in the folder, the process goes on with what it has.
                log.exception("policy folder could not be taken")
            await asyncio.sleep(self._every)

    async def scan(self, now: datetime) -> None:
        """Read the folder once, and take it if it has come to rest and changed."""
        try:
            files = await asyncio.to_thread(read_folder, self._folder)
            if not files:
                # An empty mount point or a checkout in the making, more likely than a wish to remove all.
                raise FolderError(
                    f"{self._folder}: cannot be taken: has no YAML file; what is in force stays"
                )
        except FolderError as error:
            # A folder that is gone deletes nothing.
            self._say((str(error), *(p for p in self._plane.folder_problems if p != str(error))))
            return
        self._say(
            tuple(p for p in self._plane.folder_problems if not p.startswith(f"{self._folder}: cannot"))
        )
        settling, take = self._settling.scanned(
            {name: _hash(content) for name, content in files.items()}, now
        )
        if take:
            try:
                await self._take(files)
            except RefusedError as error:
                # The store fails: the next scan tries again.
                self._say((str(error),))
                return
        self._settling = settling
        if not take and self._differs_at and self._differs_at != self._plane.world.generation:
            self._compare(files)

    async def _take(self, files: Files) -> None:
        world = self._plane.world
        if self._taken is None and world.generation > 0:
            self._taken = files
            self._compare(files)
            return
        before = self._taken or {}
        files = whole(files, before)
        applied = await self._plane.take(files, ACTOR)
        self._taken = {
            name: before.get(name, c) if isinstance(c, Problem) else c for name, c in files.items()
        }
        self._differs_at = 0
        self._say(applied.problems)
        if applied.accepted:
            log.info("documents accepted", generation=applied.generation, documents=applied.accepted)
        if applied.removed:
            log.warning("documents removed", generation=applied.generation, documents=applied.removed)

    def _compare(self, files: Files) -> None:
        """Report what changed while nobody watched: an operator must say that it is meant."""
        world = self._plane.world
        ordered = {state.name: state.service for state in world.releases.values()}
        loaded = load(files, world.catalog, ordered=ordered)
        differs = loaded.catalog.digests() != world.catalog.digests()
        how = f"`turnout apply -f {self._folder}` takes it in"
        note = [f"{self._folder}: differs from what is in force; {how}"] if differs else []
        self._differs_at = world.generation if differs else 0
        self._say((*map(str, loaded.errors), *note))

    def _say(self, problems: tuple[str, ...]) -> None:
        if problems != self._plane.folder_problems:
            for problem in problems:
                log.warning("documents not taken", problem=problem)
        self._plane.folder_problems = problems


def _hash(content: bytes | Problem) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else str(content).encode()).hexdigest()
