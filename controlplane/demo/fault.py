"""What goes wrong in the demo, and when: the language of ``--fault``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["none", "errors", "both", "latency", "crash", "silent"]
Phase = Literal["progressing", "guarding"]

SEGMENTS: Mapping[str, re.Pattern[bytes]] = {
    "beta": re.compile(rb"\r\ncookie:[^\r\n]*?[ ;]beta=1(?:;|\r\n)", re.IGNORECASE),
    "eu": re.compile(rb"\r\nx-region: ?eu\r\n", re.IGNORECASE),
}
"""How the sample service recognises a segment in the head of a request."""

ALLOWED = (
    "none, errors=10%, both=10%, latency=x2, crash or silent; "
    "any share and factor; then @guarding (from the guard on), and after errors, both and latency "
    f"@segment=NAME ({', '.join(SEGMENTS)})"
)
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
_FACTOR = re.compile(r"x([0-9]{1,4}(?:\.[0-9]{1,2})?)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the canary (``both``: of both versions; ``silent``: of the proxies' statistics).

    Attributes:
        kind: What goes wrong.
        share: Of the requests that fail, in 0..1.
        factor: By which latency is multiplied.
        segment: Only its requests are hit; None for all.
        phase: The phase of the release from which on the fault is there.
    """

    kind: Kind = "none"
    share: float = 0.0
    factor: float = 1.0
    segment: str | None = None
    phase: Phase = "progressing"

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Return the fault that ``text`` names, such as ``errors=10%@guarding``.

        Raises:
            ValueError: If it names none; the message has the allowed forms.
        """
        what, *when = text.strip().split("@")
        name, _, amount = what.partition("=")
        conditions = [part.partition("=")[::2] for part in when]
        segments = [value for key, value in conditions if key == "segment"]
        phases = [key for key, value in conditions if key in get_args(Phase) and not value]
        share, factor = _SHARE.fullmatch(amount), _FACTOR.fullmatch(amount)
        match name:
            case "errors" | "both":
                known = share is not None and 0 < float(share[1]) <= 100
            case "latency":
                known = factor is not None and float(factor[1]) > 1
            case "crash" | "silent":
                known = what == name and not segments
            case _:
                known = what == "none" and not when
        if (
            not known
            or len(segments) + len(phases) != len(when)
            or max(len(segments), len(phases)) > 1
            or any(segment not in SEGMENTS for segment in segments)
        ):
            raise ValueError(f"--fault: {text!r} is not a fault; allowed: {ALLOWED}")
        return cls(
            name,  # type: ignore[arg-type]  # the match above lets only kinds pass
            float(share[1]) / 100 if share else 0.0,
            float(factor[1]) if factor else 1.0,
            segments[0] if segments else None,
            phases[0] if phases else "progressing",  # type: ignore[arg-type]  # filtered by Phase
        )

    def __str__(self) -> str:
        amount = f"={self.share * 100:g}%" if self.share else f"=x{self.factor:g}" if self.factor > 1 else ""
        segment = f"@segment={self.segment}" if self.segment else ""
        return self.kind + amount + ("@guarding" if self.phase == "guarding" else "") + segment

    def present(self, phase: str) -> bool:
        """Return whether a release in ``phase`` brings the fault; before a release starts all is well."""
        if self.kind == "none":
            return False
        return phase in ("guarding", "promoted") or (
            self.phase == "progressing" and phase not in ("", "waiting")
        )
