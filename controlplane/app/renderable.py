"""What can be rendered of the services of a fleet, where not all can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from controlplane.release.traffic import ServiceTraffic
from controlplane.resources.rendering import Rendering

Services = Mapping[str, ServiceTraffic]
Compile = Callable[[Sequence[ServiceTraffic], Rendering | None], Rendering]


class Fitting:
    """Renders as many services as can be; the others stay as they were, and are named with the reason.

    A service is never taken away because it, or another, cannot be rendered: one of which nothing is known,
    as after a restart, gets its stable version for everyone.

    Attributes:
        rendering: The last one that worked.
        problems: By service: why it is not as it should be.
    """

    def __init__(self, compile_: Compile, last: Rendering | None) -> None:
        """``compile_`` raises a ValueError that says what to change."""
        self.rendering = last
        self.problems: dict[str, str] = {}
        self._compile = compile_
        self._good: dict[str, ServiceTraffic] = {}

    def fit(self, wanted: Services, unfit: Mapping[str, str]) -> None:
        """Render what is wanted, the first ones first, where not all have a place.

        What is ``unfit`` is wanted too, but known not to be possible.
        """
        known = self.rendering.services if self.rendering else {}
        self._good = {name: known[name] for name in wanted if name in known}
        self._add({name: each.at_rest() for name, each in wanted.items() if name not in known})
        self.problems = dict(unfit)
        self._add({n: each for n, each in wanted.items() if n not in unfit and self._good.get(n) != each})
        for name in self.problems:
            if self._good.get(name) == wanted[name].at_rest():
                self.problems[name] += f"; until then {wanted[name].stable} serves everyone"

    def _add(self, more: Services) -> None:
        """Add services to what is good: all of them, or each half, and so on to the culprits."""
        trial = {**self._good, **more}
        try:
            self.rendering = self._compile(tuple(trial.values()), self.rendering)
        except ValueError as error:
            if len(more) > 1:
                half = len(more) // 2
                self._add(dict(islice(more.items(), half)))
                self._add(dict(islice(more.items(), half, None)))
            else:
                self.problems |= dict.fromkeys(more, str(error))
        else:
            self._good = trial
