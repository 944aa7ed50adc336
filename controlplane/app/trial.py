"""Documents on trial: what would be in force if they were taken, found out before anything waits for it.

To parse, check and render megabytes takes a second or more. That is done on a world as it was read, beside
the loop; only what a decision changed meanwhile is found out again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controlplane.app.acceptance import fitting, in_use, possible_orders, put_back
from controlplane.app.following import Part
from controlplane.app.publish import Rehearsal
from controlplane.policy.catalog import Catalog
from controlplane.policy.loading import Loaded, load
from controlplane.release.ports import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What documents come to.

    Attributes:
        revision: Of the world in which they do.
        catalog: What is in force then.
        accepted: Documents that are new or other ones then, as ``kind name``, sorted.
        removed: Those that are gone, likewise.
        problems: What is not taken, and why.
        warnings: What is, and had better be otherwise.
    """

    revision: int
    catalog: Catalog
    accepted: tuple[str, ...]
    removed: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def holds(self, world: World) -> bool:
        """Return whether it is still so: a revision is of documents, releases and what is stable."""
        return self.revision == world.revision


class Trial:
    """One set of documents, tried as often as the world changes under it. For one thread at a time."""

    def __init__(self, part: Part, rehearsal: Rehearsal, *, keep_absent: bool) -> None:
        """``keep_absent`` says that documents that are not in the part stay."""
        self._part = part
        self._rehearsal = rehearsal
        self._keep_absent = keep_absent
        self._loaded: tuple[object, Loaded] | None = None

    def run(self, world: World) -> Outcome:
        """Return what the documents come to in a world."""
        loaded = self._load(world)
        catalog, kept = in_use(world, loaded)
        catalog, misfits = fitting(world, catalog)
        unfit = self._rehearsal.unrenderable(replace(world, catalog=catalog))
        catalog, without = possible_orders(world.catalog, put_back(world.catalog, catalog, unfit.keys()))
        refused = (f"Service {name!r} cannot be rendered: {why}" for name, why in unfit.items())
        before, after = world.catalog.digests(), catalog.digests()
        return Outcome(
            revision=world.revision,
            catalog=catalog,
            accepted=tuple(f"{k} {n}" for k, n in sorted(after) if before.get((k, n)) != after[k, n]),
            removed=tuple(f"{k} {n}" for k, n in sorted(before.keys() - after.keys())),
            problems=(*(str(problem) for problem in loaded.errors), *kept, *misfits, *refused, *without),
            warnings=tuple(str(problem) for problem in loaded.problems if problem.level == "warning"),
        )

    def _load(self, world: World) -> Loaded:
        """Load the files: again only for other documents, or another order that their names meet."""
        ordered = {state.name: state.service for state in world.releases.values()}
        basis = world.generation, ordered
        if self._loaded is None or self._loaded[0] != basis:
            part = self._part
            loaded = load(
                part.files, world.catalog, keep_absent=self._keep_absent, gone=part.gone, ordered=ordered
            )
            self._loaded = basis, loaded
        return self._loaded[1]
