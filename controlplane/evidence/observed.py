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
        self, names: AbstractSet[str], counted: AbstractSet[str], make: Callable[[str, bool], Observation]
    ) -> None:
        """Have the observations of the services with these names.

        ``make`` returns one of them; if told so, without what proxies say of endpoints.
        """
        self.counted = counted
        self._names = names
        self._make = make
        self._made: dict[str, Observation] = {}

    @classmethod
    def of(cls, made: Mapping[str, Observation]) -> Observed:
        """Return observations that are made already."""
        return cls(
            made.keys(), {name for name, seen in made.items() if seen.cells}, lambda name, _: made[name]
        )

    def __getitem__(self, service: str) -> Observation:
        if service not in self._names:
            raise KeyError(service)
        if service not in self._made:
            self._made[service] = self._make(service, True)
        return self._made[service]

    def counts(self, service: str) -> Observation:
        """Return the observation of a service, perhaps without what proxies say of endpoints; it is not kept.

        A thousand that are kept at a time, each with the names of a thousand proxies, take as long to look
        through for cyclic garbage as everything else of an interval.
        """
        return self._made.get(service) or self._make(service, False)

    def __contains__(self, service: object) -> bool:
        return service in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
