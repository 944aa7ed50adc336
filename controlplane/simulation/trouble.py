"""Faults as they hit the cells of a traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controlplane.simulation.business import Business
from controlplane.simulation.faults import NOTHING, Effect, Fault
from controlplane.simulation.noise import Floats
from controlplane.simulation.reads import Chance


@dataclass(frozen=True, slots=True)
class Wrong:
    """What faults do to each cell, as an `Effect` says; None where they do nothing of the kind.

    Attributes:
        added: As there.
        times: As there.
        pace: ``slower`` and ``tail``.
        refusing: ``refusals`` and ``refused``.
    """

    added: Floats | None = None
    times: Floats | None = None
    pace: tuple[Floats, Floats] | None = None
    refusing: tuple[Floats, Floats] | None = None


SOUND = Wrong()


class Trouble:
    """What some faults do to the requests and the statistics of a traffic, interval by interval."""

    def __init__(
        self,
        faults: Sequence[Fault],
        proxies: Sequence[str],
        cells: Sequence[tuple[int, str, str]],
        canary: NDArray[np.bool_],
    ) -> None:
        """Let ``faults`` hit ``cells``, each a position in ``proxies``, a segment and a version.

        ``canary`` says which are the canary's.
        """
        self._faults, self._proxies, self._canary = faults, proxies, canary
        self._delays = any(fault.delays for fault in faults)
        self._hit = [
            np.array([f.segment in (None, s) and f.proxy in (None, proxies[p]) for p, s, _ in cells])
            for f in faults
        ]
        self._effects: tuple[Effect, ...] = ()
        self._wrong = SOUND

    def wrong(self, second: float, guarding: float | None, grew: float) -> Wrong:
        """Return what is wrong with each cell now, SOUND if nothing; the arguments are an `effect`'s."""
        effects = tuple(fault.effect(second, guarding, grew) for fault in self._faults)
        if effects != self._effects:  # most faults do the same for long
            self._effects, self._wrong = effects, self._worked_out(effects)
        return self._wrong

    def _worked_out(self, effects: tuple[Effect, ...]) -> Wrong:
        if all(effect == NOTHING for effect in effects):
            return SOUND
        cells = len(self._canary)
        added, times, scale, heavy = np.zeros(cells), np.ones(cells), np.ones(cells), np.ones(cells)
        refused, refusals = np.zeros(cells), np.ones(cells)
        for fault, does, hit in zip(self._faults, effects, self._hit, strict=True):
            where = hit if fault.shared else hit & self._canary
            added = np.where(where, added + does.added, added)
            times = np.where(where, times * does.times, times)
            scale = np.where(where, scale * does.slower, scale)
            heavy = np.where(where, heavy * does.tail, heavy)
            refused = np.where(where, refused + does.refused, refused)
            refusals = np.where(where, refusals * does.refusals, refusals)
        return Wrong(
            added if added.any() else None,
            times if (times != 1).any() else None,
            (scale, heavy) if (scale != 1).any() or (heavy != 1).any() else None,
            (refusals, refused) if (refusals != 1).any() or refused.any() else None,
        )

    def factors(self, metrics: Sequence[Business], second: float, guarding: float | None) -> Floats | None:
        """Return what faults do to the rate of each metric in each cell; None if that is nothing."""
        losses = [fault.effect(second, guarding).loss for fault in self._faults]
        if not any(losses):
            return None
        found = np.ones((len(metrics), len(self._canary)))
        for fault, loss, hit in zip(self._faults, losses, self._hit, strict=True):
            if loss:
                for row, metric in zip(found, metrics, strict=True):
                    if fault.metric in (None, metric.name):
                        row[hit & self._canary] *= metric.worse(loss)
        return found

    def chances(self, second: float, guarding: float | None) -> list[Chance] | None:
        """Return what may become of each proxy's statistics; None if all are in time."""
        if not self._delays:
            return None
        found = []
        for proxy in self._proxies:
            here = [f.reads(second, guarding) for f in self._faults if f.proxy in (None, proxy)]
            late = max((chance.late for chance in here), default=0.0)
            restarts = max((chance.restarts for chance in here), default=0.0)
            found.append(Chance(late, restarts, any(chance.silent for chance in here)))
        return found
