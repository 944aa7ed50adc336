"""From when until when a certificate is valid, and when somebody should hear of its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

PART: Final = 5  # certificates may live for an hour, so an end is never told before this part of the life


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid, both included."""

    begins: datetime
    ends: datetime

    def holds(self, now: datetime) -> bool:
        """True if it is valid at that time."""
        return self.begins <= now <= self.ends

    def near(self, soon: timedelta, now: datetime) -> bool:
        """True if less than ``soon`` is left, and less than a fifth of its life, or nothing."""
        return self.ends - now < min(soon, (self.ends - self.begins) / PART)
