"""What goes wrong in a simulation, and when: the language of ``--fault``.

It has the words of the demo's ``--fault`` and some more, since time costs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from math import exp
from typing import Literal

from controlplane.policy.documents import EVERYONE
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
    "coldstart=x2, metric=20% (the canary's), metric=+10% (a gain); "
    "both=10%, outage=20% (both versions', the second for 90 s, from 2m if not said); "
    "lost=5%, resets=1% (of the proxies' statistics), silent (none arrive any more); "
    "then @5m (from then on), @2m-4m (between), @guarding (from the guard on; times then count from it), "
    "@segment=NAME, @proxy=p0, "
    "@metric=NAME (of metric=20%), @steps (of coldstart=x2: whenever the share grows)"
)
_AMOUNT = {
    "errors": "either", "client_errors": "either", "both": "share", "latency": "factor", "tail": "factor",
    "leak": "share", "coldstart": "factor", "metric": "share", "outage": "share", "lost": "share",
    "resets": "share",
}  # fmt: skip
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
_GAIN = re.compile(rf"\+{_SHARE.pattern}")
_FACTOR = re.compile(r"x([0-9]{1,4}(?:\.[0-9]{1,2})?)")
_TIME, _JOINED = re.compile("[0-9]"), re.compile(r"(?<!=)\+")
_ALWAYS = 1e12
LEAK_GROWS, LEAK_BEGINS = 600.0, 300.0  # seconds
WARMS = 20.0  # seconds in which a cold canary becomes e times less slow
OUTAGE_BEGINS, OUTAGE_LASTS = 120.0, 90.0  # seconds


class _RefusedError(ValueError):
    """Why what looks like a fault is none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: What.
        share: Of the requests that fail besides the usual ones, or of the reads that are lost, in 0..1; of a
            metric the part by which it is worse, below 0 where it is better.
        factor: By which usual errors, latency, or the slow part of the requests are multiplied.
        segment: Only its requests are hit; None for all.
        begins: Seconds after the release's start, or after the guard's.
        ends: The same.
        guarding: True if its times count from the guard's begin.
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
        except _RefusedError as why:
            raise ValueError(f"--fault: {text!r} is not a fault: {why}; allowed: {ALLOWED}") from None
        except (KeyError, ValueError):
            raise ValueError(f"--fault: {text!r} is not a fault; allowed: {ALLOWED}") from None

    @classmethod
    def several(cls, text: str) -> tuple[Fault, ...]:
        """Return the faults that a ``+`` joins; one after an equals sign is that of a gain.

        Raises:
            ValueError: As :meth:`parse` does.
        """
        found = tuple(cls.parse(part) for part in _JOINED.split(text))
        if len(found) > 1 and any(fault.kind == "none" for fault in found):
            raise ValueError(f"--fault: {text!r}: 'none' goes with nothing else; it has a --fault of its own")
        return found

    @classmethod
    def _parse(cls, text: str) -> Fault:
        what, *when = text.split("@")
        name, sign, amount = what.partition("=")
        if name not in _AMOUNT:
            if sign or name not in ("none", "crash", "silent"):
                raise ValueError(name)
            fault = cls(name, share=1.0 if name == "crash" else 0.0)  # type: ignore[arg-type]  # just checked
        else:
            fault = cls._of(name, amount)
        if name == "none" and when:
            raise _RefusedError("where nothing is wrong there is no when or where")
        for part in when:
            if not _TIME.match(part):
                fault = fault._where(part)
        times = [part for part in when if _TIME.match(part)]
        fault = fault._when(times)
        if fault.delays and fault.segment is not None:
            raise _RefusedError("a proxy's statistics are those of all segments")
        return fault

    @classmethod
    def _of(cls, name: str, amount: str) -> Fault:
        """Return a fault that is as bad as ``amount`` says."""
        share, factor, gain = (form.fullmatch(amount) for form in (_SHARE, _FACTOR, _GAIN))
        if gain and name != "metric":
            raise _RefusedError("only a metric can be better")
        allowed = _AMOUNT[name]
        if not (
            (share or gain) if allowed == "share" else factor if allowed == "factor" else share or factor
        ):
            forms = {"share": f"{name}=10%", "factor": f"{name}=x2"}
            raise _RefusedError(f"write {forms.get(allowed) or ' or '.join(forms.values())}")
        part = float(share[1]) / 100 if share else -float(gain[1]) / 100 if gain else 0.0
        fault = cls(name, share=part, factor=float(factor[1]) if factor else 1.0)  # type: ignore[arg-type]  # the keys of _AMOUNT are kinds
        if fault.share > 1:
            raise _RefusedError("more than 100%")
        if fault.factor < 1:
            raise _RefusedError("a factor is at least 1")
        return fault

    def _where(self, part: str) -> Fault:
        """Return the fault with what is said of it besides its times."""
        name, _, value = part.partition("=")
        if name == "steps" and self.kind != "coldstart":
            raise _RefusedError("@steps is of coldstart")
        if name == "metric" and self.kind != "metric":
            raise _RefusedError("@metric is of metric")
        if getattr(self, name, None) and name in ("guarding", "steps", "segment", "proxy", "metric"):
            raise _RefusedError(f"@{name} stands twice; write two faults, with + between")
        match name, value:
            case "guarding", "" if part == name:
                return replace(self, guarding=True)
            case "steps", "" if part == name:
                return replace(self, steps=True)
            case "segment", str(value) if value:
                return replace(self, segment=value)
            case "proxy", str(value) if value:
                return replace(self, proxy=value)
            case "metric", str(value) if value:
                return replace(self, metric=value)
            case _:
                raise ValueError(part)

    def _when(self, times: list[str]) -> Fault:
        """Return the fault with its times; an outage and a leak have usual ones."""
        if len(times) > 1:
            raise _RefusedError(
                f"@{times[0]} and @{times[1]} both say when; write two faults, with + between"
            )
        begins, ends = self._usual
        if times:
            begin, sign, end = times[0].partition("-")
            begins = parse_duration(begin).total_seconds()
            ends = parse_duration(end).total_seconds() if sign else self._from(begins)
        if ends <= begins:
            raise _RefusedError("it ends before it begins")
        return replace(self, begins=begins, ends=ends)

    @property
    def _usual(self) -> tuple[float, float]:
        """When it begins and ends if nothing is said."""
        begins = {"outage": OUTAGE_BEGINS, "leak": LEAK_BEGINS}.get(self.kind, 0.0) * (not self.guarding)
        return begins, self._from(begins)

    def _from(self, begins: float) -> float:
        """Return when it ends if it begins then, and nothing is said of its end."""
        return begins + OUTAGE_LASTS if self.kind == "outage" else _ALWAYS

    def __str__(self) -> str:
        better = "+" * (self.share < 0)
        amount = f"={better}{100 * abs(self.share):g}%" if self.share else f"=x{self.factor:g}"
        text = self.kind + (amount if self.kind in _AMOUNT else "")
        if (self.begins, self.ends) != self._usual:
            said = self.ends != self._from(self.begins)
            until = f"-{format_duration(timedelta(seconds=self.ends))}" if said else ""
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

    @property
    def gain(self) -> bool:
        """True if it is none: a business metric is better on the canary."""
        return self.kind == "metric" and self.share < 0

    def begun(self, guarding: float | None, reached: Mapping[str, float]) -> float | None:
        """Return the second from which on requests of the canary have it; None if none ever have.

        Args:
            guarding: The second at which the guard begins; None if it never does.
            reached: By segment the second from which on the canary has requests of it.
        """
        if self.guarding and guarding is None:
            return None
        from_ = (guarding or 0.0) * self.guarding
        if self.segment is None:
            first = min(reached.values(), default=None)
        else:
            first = reached.get(self.segment, reached.get(EVERYONE))
        if first is None or first >= from_ + self.ends:
            return None
        return max(first, from_ + self.begins)

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
        if since is None:
            return NOTHING
        if self.steps:
            since = second - grew
        does = _EFFECTS.get(self.kind)
        return NOTHING if does is None else does(self.share, self.factor, since)

    def _since(self, second: float, guarding: float | None) -> float | None:
        """Return for how many seconds it has been there, or None while it is not."""
        if self.guarding and guarding is None:
            return None
        there = second - (guarding or 0.0) * self.guarding
        return there - self.begins if self.begins <= there < self.ends else None

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
        loss: Part by which business metrics are worse, below 0 where they are better.
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
# By kind, what its share and factor do so many seconds after it began.
_EFFECTS: Mapping[Kind, Callable[[float, float, float], Effect]] = {
    "both": lambda share, _, __: Effect(added=share),
    "client_errors": lambda share, factor, _: Effect(refused=share, refusals=factor),
    "coldstart": lambda _, factor, since: Effect(slower=1 + (factor - 1) * exp(-since / WARMS)),
    "crash": lambda share, _, __: Effect(added=share),
    "errors": lambda share, factor, _: Effect(added=share, times=factor),
    "latency": lambda _, factor, __: Effect(slower=factor),
    "leak": lambda share, _, since: Effect(added=share * min(1.0, since / LEAK_GROWS)),
    "metric": lambda share, _, __: Effect(loss=share),
    "outage": lambda share, _, __: Effect(added=share, slower=2.0),
    "tail": lambda _, factor, __: Effect(tail=factor),
}
