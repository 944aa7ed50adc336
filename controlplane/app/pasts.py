"""What the past of each service taught, one interval after the other."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Observation
from controlplane.evidence.observed import Observed
from controlplane.release.ports import Json

STORED_EVERY: Final = 12  # intervals, while nothing is counted

_NOTHING: Final = Learned()


@dataclass(slots=True)
class Lesson:
    """What an interval taught.

    Attributes:
        learned: By service.
        stored: What of it to store now.
        met: The services that had counts by now.
    """

    learned: dict[str, Learned] = field(default_factory=dict)
    stored: dict[str, Json] = field(default_factory=dict)
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
        releasing: Collection[str],
    ) -> Generator[None, None, Lesson]:
        """Learn from an interval, of a service in each step; it counts with :meth:`commit`.

        ``stable`` has the stable version of each service; what is learned of those that are ``releasing`` is
        stored in any case.
        """
        lesson, quiet = Lesson(), Observation("", *interval)
        faded: dict[int, Learned] = {}
        for number, service in enumerate(observed):
            before = self.of(service)
            if service in observed.counted:
                after = learn(before, observed.counts(service), stable.get(service, ""))
                lesson.met.add(service)
            elif (known := faded.get(id(before))) is not None:
                after = known
            else:
                after = faded[id(before)] = learn(before, quiet, "")
            lesson.learned[service] = after
            due = service in self._met and (self._intervals + number) % STORED_EVERY == 0
            if service in observed.counted or service in releasing or due:
                lesson.stored[service] = after.to_json()
            yield
        return lesson

    def commit(self, lesson: Lesson) -> None:
        """Say that a lesson was stored."""
        self._of |= lesson.learned
        self._met |= lesson.met
        self._intervals += 1
