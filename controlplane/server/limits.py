"""Rates and deadlines of the streams that one may choose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Rates and deadlines of the streams.

    Attributes:
        first_requests: Streams admitted per second.
        write_timeout: Seconds that one write may take before the stream counts as stuck.
        behind_timeout: Seconds that a client which is ahead of this replica waits for it; 0 for not at all.
        silence: Seconds after which a client that comes back counts as having asked for all that it has;
            after twice as long who asks by name counts as having dropped what it does not use.
        streams_per_peer: Streams of one certificate, or of one host without certificates. Generous, since a
            fleet may share a certificate or stand behind one address.
        silent_per_peer: Streams of one peer that have said nothing yet; of more, the oldest is ended. They do
            not count among the others.

    Raises:
        ValueError: If nobody could be served by them.
    """

    first_requests: float = 2000.0
    write_timeout: float = 10.0
    behind_timeout: float = 5.0
    silence: float = 2.0
    streams_per_peer: int = 10_000
    silent_per_peer: int = 1000

    def __post_init__(self) -> None:
        for name in ("first_requests", "write_timeout"):
            if not getattr(self, name) > 0:  # nor if it is not a number
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")
        for name in ("behind_timeout", "silence"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("streams_per_peer", "silent_per_peer"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
