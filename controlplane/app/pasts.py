"""What the past of each service taught, one interval after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from controlplane.evidence.learned import Learned, learn_all
from controlplane.evidence.observation import Observation
from controlplane.evidence.observed import Observed
from controlplane.release.ports import Json

STORED_EVERY: Final = 12  # intervals, while nothing is counted
TOGETHER: Final = 16  # services in one step of a millisecond, 5 where each has 64 cells; more gain little

_NOTHING: Final = Learned()


class Stored(Mapping[str, Json]):
    """Pasts by service, each made into plain values when the store asks for it.

    Python looks through new lists for cyclic garbage: through those of a thousand services for 60 ms.
    """

    def __init__(self) -> None:
        self._of: dict[str, Learned] = {}

    def add(self, service: str, learned: Learned) -> None:
        """Have what is learned of a service, too."""
        self._of[service] = learned

    def __getitem__(self, service: str) -> Json:
        return self._of[service].to_json()

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


@dataclass(slots=True)
class Lesson:
    """What an interval taught.

    Attributes:
        learned: By service.
        stored: What of it to store now.
        met: The services that had counts by now.
    """

    learned: dict[str, Learned] = field(default_factory=dict)
    stored: Stored = field(default_factory=Stored)
    met: set[str] = field(default_factory=set)


class Pasts:
    """Keeps what is learned of each service.

    An interval without counts teaches the same whatever the service, so its observation is not made; and
    services with the same past, as all have of which nothing was ever counted, share what comes of it. While
    nothing is counted the past only fades. That is stored seldom: after a restart it has faded as if the
    process had ended that much earlier. Of a service without any counts nothing is stored.
    """

    def __init__(self, stored: Mapping[str, Json] | None = None) -> None:
        """Go on from what was stored."""
        self._of = {name: Learned.from_json(body) for name, body in (stored or {}).items()}
        self._met = set(self._of)  # services that had counts
        self._intervals = 0

    def of(self, service: str) -> Learned:
        """Return what the past of a service taught."""
        return self._of.get(service, _NOTHING)

    def learning(
        self,
        observed: Observed,
        interval: tuple[datetime, datetime],
        stable: Mapping[str, str],
        releasing: Mapping[str, bool],
    ) -> Generator[None, None, Lesson]:
        """Learn from an interval, of a few services together; it counts with :meth:`commit`.

        ``stable`` has the stable version of each service. What is learned of those that are ``releasing`` is
        stored in any case; of each it says whether the release leaves nobody on that version.
        """
        lesson, quiet, names = Lesson(), Observation("", *interval), list(observed)
        taught: dict[str | int, Learned] = {}  # by service, and by the past of those without counts
        for first in range(0, len(names), TOGETHER):
            services: dict[str, str | int] = {}
            asked: dict[str | int, tuple[Learned, Observation, str, bool]] = {}
            for service in names[first : first + TOGETHER]:
                before, left = self.of(service), releasing.get(service, False)
                if service in observed.counted:
                    lesson.met.add(service)
                    services[service] = service
                    asked[service] = before, observed.counts(service), stable.get(service, ""), left
                    yield
                elif left:
                    services[service] = service
                    asked[service] = before, quiet, "", left
                else:
                    services[service] = id(before)
                    if id(before) not in taught:
                        asked[id(before)] = before, quiet, "", False
            if asked:
                taught |= zip(asked, learn_all(*zip(*asked.values(), strict=True)), strict=True)
                yield
            for number, (service, which) in enumerate(services.items(), first):
                lesson.learned[service] = after = taught[which]
                due = service in self._met and (self._intervals + number) % STORED_EVERY == 0
                if service in observed.counted or service in releasing or due:
                    lesson.stored.add(service, after)
        return lesson

    def commit(self, lesson: Lesson) -> None:
        """Say that a lesson was stored."""
        self._of |= lesson.learned
        self._met |= lesson.met
        self._intervals += 1
