"""The demo in the terminal: a live picture, or one line per change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from controlplane.demo.status import DecisionStatus, DemoStatus, Mark, Verdict

_MARKS: dict[Mark, tuple[str, str]] = {
    "done": ("●", "green"),
    "now": ("◉", "bold cyan"),
    "todo": ("○", "bright_black"),
    "failed": ("✕", "bold red"),
}
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "pass": ("pass", "green"),
    "fail": ("fail", "bold red"),
    "not yet": ("not yet", "yellow"),
}
_PHASES = {
    "progressing": "cyan",
    "guarding": "blue",
    "promoted": "green",
    "rolling back": "red",
    "rolled back": "red",
}
_DIM = "bright_black"
_BAR = 24
_WIDTH, _WIDEST = 100, 150
_AGAIN = 10.0  # seconds, after which a line tells of an activity that only counts on


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much of the picture there is room for."""

    gap: int  # blank lines between its parts
    decisions: int
    segments: bool  # under the steps
    versions: bool  # what users saw of each


_DETAILS = (_Detail(1, 4, True, True), _Detail(0, 4, True, True), _Detail(0, 3, False, False))


class View(Protocol):
    """What shows a run while it is entered as a context."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""

    def show(self, status: DemoStatus) -> None:
        """Show how it stands."""


class LiveView:
    """The picture, redrawn in place while it is entered as a context."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, status: DemoStatus) -> None:
        """Draw the status."""
        size = self._live.console.size
        self._live.update(draw(status, min(size.width, _WIDEST), size.height), refresh=True)


class LineView:
    """For logs and pipes: one line per decision, per phase and step, and at times of what it does now."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, int] | None = None
        self._activity = ""
        self._at = 0.0
        self._told: set[DecisionStatus] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, status: DemoStatus) -> None:
        """Print what is new."""
        for decision in status.decisions:
            if decision not in self._told:
                self._told.add(decision)
                self._activity, self._at = decision.reason, status.seconds
                self._line(f"{decision.at:7.1f}s  {decision.action}: {decision.reason}")
        now = status.phase, status.step
        known = bool(self._activity) and status.activity.endswith(self._activity)  # after its stage
        later = status.seconds >= self._at + _AGAIN and not known
        if now != self._last or later:
            self._last, self._activity, self._at = now, status.activity, status.seconds
            told = "" if known or not status.activity else f": {status.activity}"
            self._line(f"{status.seconds:7.1f}s  {status.phase}{_position(status)}{told}")
        for line in status.conclusion:
            self._line(f"{status.seconds:7.1f}s  {line}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def draw(status: DemoStatus, width: int = _WIDTH, height: int | None = None) -> RenderableType:
    """Return the picture, at most ``width`` wide; where ``height`` lacks, what matters least is out."""
    console = Console(width=width)
    pictures = [_picture(status, width, detail) for detail in _DETAILS]
    fitting = (each for each in pictures if height is None or len(console.render_lines(each)) <= height)
    return next(fitting, pictures[-1])


def _picture(status: DemoStatus, width: int, detail: _Detail) -> RenderableType:
    gap = (detail.gap, 0, 0, 0)
    parts: list[RenderableType] = [
        _title(status),
        Padding(_ladder(status, width, segments=detail.segments), gap),
        Padding(_proxies(status), gap),
        Padding(_evidence(status), gap),
        Padding(_users(status, versions=detail.versions), gap),
    ]
    if status.decisions:
        parts.append(Padding(_decisions(status, detail.decisions), gap))
    if status.conclusion:
        colour = _PHASES.get(status.phase, "yellow")
        lines = Table.grid(padding=(0, 2, 0, 0))  # under one another, where they are longer than the line
        for line in status.conclusion[1:]:
            what, _, told = line.partition(" ")
            lines.add_row(Text(what), Text(told.strip()))
        title = Text(status.conclusion[0], style=f"bold {colour}")
        parts.append(
            Padding(
                Panel(
                    lines,
                    title=title,
                    title_align="left",
                    border_style=colour,
                    box=box.ROUNDED,
                    padding=(0, 2),
                ),
                gap,
            )
        )
    return Panel(Group(*parts), border_style=_DIM, box=box.ROUNDED, padding=(0, 2), width=width)


def _position(status: DemoStatus) -> str:
    if not status.step or status.phase not in ("progressing", "rolling back"):
        return ""
    return f" {status.step}/{len(status.steps)} {status.steps[status.step - 1].name}"


def _title(status: DemoStatus) -> RenderableType:
    """Draw the release and where it is, then on lines of their own the fault and what it is doing."""
    left = Text.assemble(
        (status.service, "bold"),
        ("  ", ""),
        (status.from_, _DIM),
        (" → ", _DIM),
        (status.to, "bold"),
        (f"  {status.release}", _DIM),
    )
    right = Text.assemble(
        (f"{status.phase}{_position(status)}", f"bold {_PHASES.get(status.phase, 'yellow')}"),
        (f"   {_clock(status.seconds)}", _DIM),
    )
    fault = Text(f"fault {status.fault}", "magenta") if status.fault != "none" else Text("no fault", _DIM)
    return Group(_sides(left, right), _sides(Text(status.activity, _DIM), fault))


def _sides(left: Text, right: Text) -> Table:
    """Set two texts at the edges of one line; only the left one is ever cut."""
    table = Table.grid(expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True, min_width=right.cell_len)
    table.add_row(left, right)
    return table


def _ladder(status: DemoStatus, width: int, *, segments: bool) -> Table:
    """Draw the steps side by side: mark and line, name, share, segment."""
    table = Table.grid(expand=True)
    for _ in status.steps:
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    rails, names, shares, whose = [], [], [], []
    cell = (width - 6) // max(1, len(status.steps))
    for number, step in enumerate(status.steps, 1):
        sign, style = _MARKS[step.mark]
        rail = "green" if step.mark == "done" else _DIM
        line = "" if number == len(status.steps) else "─" * cell
        rails.append(Text.assemble((sign, style), (line, rail), no_wrap=True, overflow="crop"))
        names.append(Text(step.name, style="bold cyan" if step.mark == "now" else style))
        shares.append(Text(step.share, style="" if step.mark == "now" else _DIM))
        whose.append(Text(step.segment, style=_DIM))
    table.add_row(*rails)
    table.add_row(*names)
    table.add_row(*shares)
    if segments:
        table.add_row(*whose)
    return table


def _proxies(status: DemoStatus) -> Table:
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style=_DIM, show_edge=False)
    table.add_column("proxy", no_wrap=True)
    for name in ("asked", "acknowledged", "observed", "requests", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    for proxy in status.proxies:
        agreed = proxy.acked == proxy.asked
        table.add_row(
            proxy.name,
            _share(proxy.asked),
            Text(_share(proxy.acked), style="green" if agreed else "yellow"),
            _share(proxy.observed),
            f"{proxy.requests:,}",
            Text(f"{proxy.errors:,}", style="" if proxy.errors else _DIM),
            Text(proxy.note, style="yellow"),
        )
    return table


def _evidence(status: DemoStatus) -> Table:
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=12)
    table.add_column(no_wrap=True, width=_BAR)
    table.add_column(no_wrap=True, min_width=9)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    # e = 1 says nothing: the bar begins there, and only what lies above speaks against the canary.
    height = math.log(max(1.0, status.harm)) / math.log(status.harm_limit)
    colour = "red" if height >= 1 else "yellow" if height > 0.5 else "green"
    table.add_row(
        Text("harm", style=_DIM),
        _bar(height, colour),
        Text(f"e {_number(status.harm)}", style=colour),
        Text(f"rolled back at {status.harm_limit:g}, log scale", style=_DIM),
    )
    for proof in status.proofs:
        word, style = _VERDICTS[proof.verdict]
        filled = proof.proof if proof.verdict == "not yet" else 1.0
        table.add_row(
            Text(proof.metric, style=_DIM),
            _bar(filled, "red" if proof.verdict == "fail" else "green" if filled >= 1 else "cyan"),
            Text(word, style=style),
            Text(proof.detail, style=_DIM),
        )
    return table


def _users(status: DemoStatus, *, versions: bool) -> Table:
    """Draw what the users saw: a line for each version, and the sums."""
    load = status.load
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style=_DIM, show_edge=False)
    table.add_column("users saw", no_wrap=True)
    for name in ("requests", "failed", "p50", "p95", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    for seen in load.versions:
        failed = f"{seen.failed:,} ({_number(100 * seen.failed / max(1, seen.requests))} %)"
        times = (f"{ms} ms" if ms is not None else "" for ms in (seen.p50, seen.p95, seen.p99))
        table.add_row(seen.version, f"{seen.requests:,}", failed, *times)
    bad = f"{load.unexplained:,} unexplained", "bold red" if load.unexplained else _DIM
    back = f"{status.moved_back:,} moved back", "bold red" if status.moved_back else _DIM
    sums = Text.assemble(
        (f"{load.rate:,.0f} requests/s · {load.users_on_canary:,} of {load.users:,} users had it", _DIM),
        (" · ", _DIM),
        back,
        (" · ", _DIM),
        bad,
    )
    both = Table.grid(expand=True)
    if versions:
        both.add_row(table)
    both.add_row(sums)
    return both


def _decisions(status: DemoStatus, last: int) -> Table:
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, style=_DIM)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis", style=_DIM)
    for decision in status.decisions[-last:]:
        table.add_row(_clock(decision.at), decision.action, decision.reason)
    return table


def _bar(share: float, colour: str) -> Text:
    """Return a bar that is filled by ``share`` (cut to 0..1)."""
    filled = round(_BAR * min(1.0, max(0.0, share)))
    return Text.assemble(("━" * filled, colour), ("─" * (_BAR - filled), "grey30"))


def _share(ppm: int | None) -> str:
    return "–" if ppm is None else f"{ppm / 10_000:.1f} %"


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}" if value < 1e6 else f"{value:.0e}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, int(seconds)), 60)
    return f"{minutes}:{rest:02d}"
