"""What goes wrong in a simulation, and when: the language of ``--fault``.

It has the words of the demo's ``--fault`` and some more, since time costs nothing here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from math import exp
from typing import Literal

from controlplane.policy.values import format_duration, parse_duration
from controlplane.simulation.reads import Chance

Kind = Literal[
    "none",
    "errors",
    "client_errors",
    "both",
    "latency",
    "metric",
    "tail",
    "crash",
    "leak",
    "coldstart",
    "outage",
    "lost",
    "resets",
    "silent",
]

ALLOWED = (
    "none; errors=10%, errors=x5, client_errors=10%, client_errors=x5, latency=x2, tail=x4, leak=20%, crash, "
    "coldstart=x2, metric=20% (the canary's); "
    "both=10%, outage=20% (both versions', the second for 90 s from 2m); "
    "lost=5%, resets=1% (of the proxies' statistics), silent (none arrive any more); "
    "then @5m (from then on), @2m-4m (between), @guarding (from the guard on), @segment=NAME, @proxy=p0, "
    "@metric=NAME (of metric=20%), @steps (of coldstart=x2: whenever the share grows)"
)
_AMOUNT = {
    "errors": "either", "client_errors": "either", "both": "share", "latency": "factor", "tail": "factor",
    "leak": "share", "coldstart": "factor", "metric": "share", "outage": "share", "lost": "share",
    "resets": "share",
}  # fmt: skip
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
_FACTOR = re.compile(r"x([0-9]{1,4}(?:\.[0-9]{1,2})?)")
_ALWAYS = 1e12
LEAK_GROWS, LEAK_BEGINS = 600.0, 300.0  # seconds
WARMS = 20.0  # seconds in which a cold canary becomes e times less slow
OUTAGE = (120.0, 210.0)  # seconds


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: What.
        share: Of the requests that fail besides the usual ones, or of the reads that are lost, in 0..1.
        factor: By which usual errors, latency, or the slow part of the requests are multiplied.
        segment: Only its requests are hit; None for all.
        begins: Seconds after the release's start.
        ends: The same.
        guarding: True if it begins with the guard.
        proxy: Only what goes through it is hit; None for all.
        metric: The business metric that suffers; None for all.
        steps: Whether it begins anew whenever the canary's share grows.
    """

    kind: Kind = "none"
    share: float = 0.0
    factor: float = 1.0
    segment: str | None = None
    begins: float = 0.0
    ends: float = _ALWAYS
    guarding: bool = False
    proxy: str | None = None
    metric: str | None = None
    steps: bool = False

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Return the fault that ``text`` names, such as ``errors=10%@5m@segment=beta``.

        Raises:
            ValueError: If it names none; the message has the allowed forms.
        """
        try:
            return cls._parse(text.strip())
        except (KeyError, ValueError):
            raise ValueError(f"--fault: {text!r} is not a fault; allowed: {ALLOWED}") from None

    @classmethod
    def _parse(cls, text: str) -> Fault:
        what, *when = text.split("@")
        name, sign, amount = what.partition("=")
        if name not in _AMOUNT:
            if sign or name not in ("none", "crash", "silent"):
                raise ValueError(name)
            fault = cls(name, share=1.0 if name == "crash" else 0.0)  # type: ignore[arg-type]  # just checked
        else:
            share, factor = _SHARE.fullmatch(amount), _FACTOR.fullmatch(amount)
            if not (
                share
                if _AMOUNT[name] == "share"
                else factor
                if _AMOUNT[name] == "factor"
                else share or factor
            ):
                raise ValueError(amount)
            fault = cls(
                name,  # type: ignore[arg-type]  # the keys of _AMOUNT are kinds
                share=float(share[1]) / 100 if share else 0.0,
                factor=float(factor[1]) if factor else 1.0,
            )
            if not 0 <= fault.share <= 1 or fault.factor < 1:
                raise ValueError(amount)
        if name == "outage":
            fault = replace(fault, begins=OUTAGE[0], ends=OUTAGE[1])
        if name == "leak":
            fault = replace(fault, begins=LEAK_BEGINS)
        for part in when:
            fault = fault._when(part)
        if fault.ends <= fault.begins or (fault.delays and fault.segment is not None):
            raise ValueError(text)  # a proxy's statistics are those of all segments
        return fault

    def _when(self, part: str) -> Fault:
        if part == "guarding":
            return replace(self, guarding=True)
        if part == "steps" and self.kind == "coldstart":
            return replace(self, steps=True)
        if part.startswith("segment="):
            return replace(self, segment=part.removeprefix("segment="))
        if part.startswith("proxy="):
            return replace(self, proxy=part.removeprefix("proxy="))
        if part.startswith("metric=") and self.kind == "metric":
            return replace(self, metric=part.removeprefix("metric="))
        begin, sign, end = part.partition("-")
        begins = parse_duration(begin).total_seconds()
        return replace(self, begins=begins, ends=parse_duration(end).total_seconds() if sign else self.ends)

    def __str__(self) -> str:
        amount = f"={100 * self.share:g}%" if self.share else f"=x{self.factor:g}"
        text = self.kind + (amount if self.kind in _AMOUNT else "")
        usual = {"outage": OUTAGE, "leak": (LEAK_BEGINS, _ALWAYS)}.get(self.kind, (0.0, _ALWAYS))
        if (self.begins, self.ends) != usual:
            until = f"-{format_duration(timedelta(seconds=self.ends))}" if self.ends < _ALWAYS else ""
            text += f"@{format_duration(timedelta(seconds=self.begins))}{until}"
        text += (
            "@steps" * self.steps
            + "@guarding" * self.guarding
            + (f"@segment={self.segment}" if self.segment else "")
        )
        text += f"@proxy={self.proxy}" if self.proxy else ""
        return text + (f"@metric={self.metric}" if self.metric else "")

    @property
    def bad(self) -> bool:
        """True if a release with it should be rolled back: the canary alone is at fault, also for a while."""
        alone = self.kind in ("errors", "client_errors", "latency", "metric", "tail", "leak", "crash")
        return alone and (self.share > 0 or self.factor > 1)

    def begun(self, guarding: float | None) -> float | None:
        """Return the second at which it begins, if the guard does at ``guarding``; None if it never does."""
        return guarding if self.guarding else self.begins

    @property
    def delays(self) -> bool:
        """True if it is one of the proxies' statistics."""
        return self.kind in ("lost", "resets", "silent")

    def effect(self, second: float, guarding: float | None, grew: float = 0.0) -> Effect:
        """Return what it does now.

        Args:
            second: Since the release's start.
            guarding: The second at which the guard began; None before.
            grew: The second at which the canary's share grew last.
        """
        since = self._since(second, guarding)
        if since is None or self.kind == "none" or self.delays:
            return NOTHING
        if self.steps:
            since = second - grew
        share, factor = self.share, self.factor
        effects = {
            "errors": Effect(added=share, times=factor),
            "client_errors": Effect(refused=share, refusals=factor),
            "crash": Effect(added=share),
            "both": Effect(added=share),
            "outage": Effect(added=share, slower=2.0),
            "leak": Effect(added=share * min(1.0, since / LEAK_GROWS)),
            "latency": Effect(slower=factor),
            "coldstart": Effect(slower=1 + (factor - 1) * exp(-since / WARMS)),
            "tail": Effect(tail=factor),
            "metric": Effect(loss=share),
        }
        return effects[self.kind]

    def _since(self, second: float, guarding: float | None) -> float | None:
        """Return for how many seconds it has been there, or None while it is not."""
        if self.guarding and guarding is None:
            return None
        since = second - ((guarding or 0.0) if self.guarding else self.begins)
        return since if since >= 0 and second < self.ends else None

    @property
    def shared(self) -> bool:
        """True if both versions have it."""
        return self.kind in ("both", "outage")

    def reads(self, second: float, guarding: float | None) -> Chance:
        """Return what it does to the statistics of a proxy that it hits."""
        if self._since(second, guarding) is None:
            return Chance()
        late = self.share if self.kind == "lost" else 0.0
        return Chance(late, self.share if self.kind == "resets" else 0.0, self.kind == "silent")


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault does to requests.

    Attributes:
        added: Share of the requests that fail, each independently.
        times: Factor of the usual errors, which come as clustered as ever.
        slower: Factor of latency.
        tail: Factor of the slow part of the requests.
        loss: Part by which business metrics are worse.
        refused: Share of the requests that are answered with a client error, each independently.
        refusals: Factor of the usual client errors.
    """

    added: float = 0.0
    times: float = 1.0
    slower: float = 1.0
    tail: float = 1.0
    loss: float = 0.0
    refused: float = 0.0
    refusals: float = 1.0


NOTHING = Effect()
