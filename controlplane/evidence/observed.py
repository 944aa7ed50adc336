"""The observations of one interval, each made when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from controlplane.evidence.observation import Observation


class Observed(Mapping[str, Observation]):
    """Observations by service.

    Nobody asks for that of a quiet service without a release, so it costs nothing until then: what an
    interval takes would grow with proxies times services.

    Attributes:
        counted: The services whose observations have cells.
    """

    def __init__(
        self, names: AbstractSet[str], counted: AbstractSet[str], make: Callable[[str], Observation]
    ) -> None:
        """Have the observations of the services with these names; ``make`` returns one of them."""
        self.counted = counted
        self._names = names
        self._make = make
        self._made: dict[str, Observation] = {}

    @classmethod
    def of(cls, made: Mapping[str, Observation]) -> Observed:
        """Return observations that are made already."""
        return cls(made.keys(), {name for name, seen in made.items() if seen.cells}, made.__getitem__)

    def __getitem__(self, service: str) -> Observation:
        if service not in self._names:
            raise KeyError(service)
        if service not in self._made:
            self._made[service] = self._make(service)
        return self._made[service]

    def __contains__(self, service: object) -> bool:
        return service in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
