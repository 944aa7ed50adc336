"""The policy folder into the store: at rest, whole, and only changes that were seen to happen."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from controlplane.app.folder import FolderError, read_folder
from controlplane.policy.loading import Files, load
from controlplane.policy.settling import Settling

if TYPE_CHECKING:
    from controlplane.app.plane import Plane

log = structlog.get_logger()
ACTOR = "policy folder"


class Importer:
    """Scans the folder; scanning is cheap and, unlike notifications, never goes deaf."""

    def __init__(self, folder: Path, plane: Plane, every: float = 0.5) -> None:
        self._folder = folder
        self._plane = plane
        self._every = every
        self._settling = Settling()
        self._known: Files | None = None

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            await self.scan(datetime.now(UTC))
            await asyncio.sleep(self._every)

    async def scan(self, now: datetime) -> None:
        """Read the folder once, and take it if it has come to rest and changed."""
        try:
            files = await asyncio.to_thread(read_folder, self._folder)
        except FolderError as error:
            # A folder that is gone deletes nothing.
            self._say((str(error),))
            return
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        self._settling, take = self._settling.scanned(hashes, now)
        if take:
            await self._take(files)

    async def _take(self, files: Files) -> None:
        world = self._plane.world
        first, self._known = self._known is None, files
        if first and world.generation > 0:
            # Whatever changed while nobody watched: an operator must say that it is meant.
            loaded = load(files, world.catalog)
            changed = loaded.catalog.digests() != world.catalog.digests()
            how = f"`turnout apply -f {self._folder}` takes it in"
            differs = f"{self._folder}: differs from what is in force; {how}"
            self._say((*map(str, loaded.errors), *([differs] if changed else [])))
            return
        applied = await self._plane.take(files, ACTOR, hold_orders=world.generation == 0)
        self._say(applied.problems)
        if applied.accepted:
            log.info("documents accepted", generation=applied.generation, documents=applied.accepted)

    def _say(self, problems: tuple[str, ...]) -> None:
        if problems != self._plane.folder_problems:
            for problem in problems:
                log.warning("document refused", problem=problem)
        self._plane.folder_problems = problems
