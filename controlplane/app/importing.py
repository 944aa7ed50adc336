"""The policy folder into the store: at rest, whole, and only changes that were seen to happen."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from controlplane.app.folder import FolderError, read_folder
from controlplane.app.following import Followed, Part, changed, part
from controlplane.app.plane import Plane
from controlplane.policy.documents import Key
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
        self._compared = 0  # generation with which it was compared
        self._refused: frozenset[str] = frozenset()  # files that are not in force as they were to be
        self._staying: frozenset[Key] = frozenset()  # documents that were to be removed
        self._warned: frozenset[str] = frozenset()  # what was told of those that were taken last

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
        if self._taken is not None and self._compared != self._plane.world.generation:
            await self._compare()  # somebody applied something

    async def _take(self, files: Files) -> None:
        """Take a folder that has come to rest: as a whole, or where it differs what of it has changed."""
        if self._taken is None and self._plane.world.generation > 0:
            self._taken = files  # what changed while nobody watched: an operator must say that it is meant
            await self._compare()
            return
        before = self._taken or {}
        files = whole(files, before)
        followed, world = self._plane.followed, self._plane.world
        catalog = world.catalog
        if followed is not None and followed.differing(catalog):
            names = changed(files, before, self._refused)
            some = await asyncio.to_thread(part, files, before, names, catalog)
            some = replace(some, gone=some.gone | self._staying)
            applied = await self._plane.take_part(some, ACTOR)
        else:
            names, some = frozenset(files), Part(files, frozenset(catalog.entries))
            applied = await self._plane.take(files, ACTOR, world.generation)
        self._taken = {
            name: before.get(name, c) if isinstance(c, Problem) else c for name, c in files.items()
        }
        await self._compare(applied.problems)
        self._remember(names, some.gone)
        if applied.accepted:
            log.info("documents accepted", generation=applied.generation, documents=applied.accepted)
        if applied.removed:
            log.warning("documents removed", generation=applied.generation, documents=applied.removed)
        for warning in applied.warnings:
            if warning not in self._warned:
                log.warning("documents taken all the same", warning=warning)
        self._warned = frozenset(applied.warnings)

    def _remember(self, names: frozenset[str], gone: frozenset[Key]) -> None:
        """Keep in mind what was refused of a folder, to try it again with its next change."""
        followed, differing = self._plane.followed, {}
        if followed is not None:
            differing = followed.differing(self._plane.world.catalog)
        sources = {} if followed is None else followed.loaded.sources
        self._refused = names & {sources[key].file for key in differing if key in sources}
        self._staying = gone & {key for key, sign in differing.items() if sign == "-"}

    async def _compare(self, problems: tuple[str, ...] = ()) -> None:
        """Report the folder's mistakes, and where it differs from what is in force."""
        world = self._plane.world
        ordered = {state.name: state.service for state in world.releases.values()}
        loaded = await asyncio.to_thread(load, self._taken or {}, world.catalog, ordered=ordered)
        self._plane.followed = followed = Followed(self._folder, loaded)
        self._compared, self._refused, self._staying = world.generation, frozenset(), frozenset()
        difference = followed.difference(world.catalog)
        told = (*problems, *map(str, loaded.errors), *([difference] if difference else []))
        self._say(tuple(dict.fromkeys(told)))

    def _say(self, problems: tuple[str, ...]) -> None:
        if problems != self._plane.folder_problems:
            for problem in problems:
                log.warning("documents not taken", problem=problem)
        self._plane.folder_problems = problems


def _hash(content: bytes | Problem) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else str(content).encode()).hexdigest()
