"""Draw the plots of docs/how-it-decides.md from simulated releases, as SVG without any library.

Figures of the rules are read from what ``python -m bench.decisions --only table --save FILE`` wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from xml.sax.saxutils import escape

from bench.cells import OURS, Cell, policy
from bench.lab import Lab
from bench.rivals import RIVALS
from controlplane.simulation.loop import watch

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 340, 64, 130, 40, 44
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:12px;fill:#57606a}"
    ".title{font-size:15px;font-weight:600}.axis{stroke:#8c959f}.grid{stroke:#d8dee4}"
    ".bad{stroke:#cf222e;fill:none;stroke-width:2}.good{stroke:#1a7f37;fill:none;stroke-width:2}"
    ".limit{stroke:#57606a;stroke-dasharray:5 4}.bar{fill:#0969da}.other{fill:#afb8c1}"
)
GOOD, BAD = 500_004, 500_002  # seeds of the releases that are drawn


@dataclass(frozen=True)
class Frame:
    """Turns figures into places; y is logarithmic to base ten."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (min(max(y, self.y[0]), self.y[1]) - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """Return a line through points."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*p) for p in points))
        return f'<polyline class="{kind}" points="{places}"/>'


def text(x: float, y: float, words: str, kind: str = "small", anchor: str = "start") -> str:
    """Return words at a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(a: tuple[float, float], b: tuple[float, float], kind: str) -> str:
    """Return a straight line."""
    return f'<line class="{kind}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>'


def save(name: str, parts: Sequence[str], height: int = HEIGHT) -> None:
    """Write a picture."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    body = "\n".join((head, f"<style>{STYLE}</style>", ground, *parts, "</svg>"))
    (DOCS / name).write_text(body + "\n")


def evidence(fault: str, seed: int) -> tuple[list[tuple[float, float]], list[tuple[float, str]]]:
    """Return log10 of a release's largest e-value over time, and when each step began."""
    cell = Cell(fault, first="5%")
    points, steps = [(0.0, 0.0)], [(0.0, "5 %")]
    names = {f"s{p}": f"{p} %" for p in (10, 25, 50)} | {"all": "100 %", "guarding": "guard"}
    for instant in watch(policy(OURS, "5%"), cell.model, cell.faults, seed):
        numbers = [dict(v.numbers) for v in instant.turn.after.verdicts]
        scaled = [100 * n["e_value"] / n["threshold"] for n in numbers if n.get("threshold")]
        points.append((instant.second, log10(max(max(scaled, default=1.0), 1e-9))))
        at = instant.turn.after.state.at
        if at in names and names[at] not in [name for _, name in steps]:
            steps.append((instant.second, names[at]))
    return points, steps


def draw_evidence() -> None:
    """Draw the evidence of a good and a bad release against the thresholds."""
    good, steps = evidence("none", GOOD)
    bad, _ = evidence("errors=10%@5m", BAD)
    frame = Frame((0, max(good[-1][0], bad[-1][0]) / 60), (-3, 3))
    parts = [text(LEFT, 22, "Evidence against a good release and one that breaks after 5 minutes", "title")]
    for power in range(-3, 4):
        left, right = frame.at(0, power), frame.at(frame.x[1], power)
        parts += [line(left, right, "grid"), text(LEFT - 8, left[1] + 4, f"{10.0**power:g}", anchor="end")]
    for minute in range(0, int(frame.x[1]) + 1, 2):
        x, y = frame.at(minute, -3)
        parts.append(text(x, y + 18, f"{minute} min", anchor="middle"))
    for power, words in ((2, "100: roll back"), (1, "10: do not advance")):
        left, right = frame.at(0, power), frame.at(frame.x[1], power)
        parts += [line(left, right, "limit"), text(right[0] + 6, right[1] + 4, words)]
    taken = 0.0
    for second, name in steps:
        x, y = frame.at(second / 60, -3)
        # A short step's name would be written over by the next one's: that goes a line higher.
        above = 8 if x >= taken else 22
        parts += [line((x, y), (x, y - 6), "axis"), text(x + 2, y - above, name)]
        taken = x + 9 * len(name)
    for points, kind, words in ((good, "good", "good"), (bad, "bad", "10 % errors")):
        parts.append(frame.path([(s / 60, e) for s, e in points], kind))
        x, y = frame.at(points[-1][0] / 60, points[-1][1])
        parts.append(text(x + 6, y - 6 if kind == "bad" else y + 4, words))
    save("evidence.svg", parts)


def draw_bars(name: str, title: str, rows: Sequence[tuple[str, float, str]]) -> None:
    """Draw one bar per rule, as long as its figure is large, ours first."""
    height = TOP + 34 * len(rows) + 16
    most = max(value for _, value, _ in rows)
    parts = [text(16, 22, title, "title")]
    for i, (rule, value, words) in enumerate(rows):
        y = TOP + 34 * i
        width = max(2.0, 360 * value / most)
        kind = "other" if i else "bar"
        parts += [
            text(206, y + 17, rule, anchor="end"),
            f'<rect class="{kind}" x="214" y="{y}" width="{width:.1f}" height="24" rx="2"/>',
            text(220 + width, y + 17, words),
        ]
    save(name, parts, height)


def draw_rules(saved: Path) -> None:
    """Draw how long each rule takes, and what that costs, from saved figures of the bench."""
    lab = Lab(0, 0, saved)
    lab.resume()
    summaries = {rule: lab.find(Cell("errors=10%", first="5%", rule=rule)) for rule in (OURS, *RIVALS)}
    found = {rule: s for rule, s in summaries.items() if s is not None and s.detected is not None}
    times = [(rule, s.detected.median) for rule, s in found.items() if s.detected is not None]
    draw_bars(
        "time-to-detect.svg",
        "Seconds until a canary is rolled back that fails 10 % of its requests (5 % of 100/s)",
        [(rule, value, f"{value:.0f} s") for rule, value in times],
    )
    harmed = [(rule, s.failed) for rule, s in found.items()]
    draw_bars(
        "harmed-requests.svg",
        "Requests that fail until then",
        [(rule, value, f"{value:.0f}") for rule, value in harmed],
    )


if __name__ == "__main__":
    draw_evidence()
    if len(sys.argv) > 1:
        draw_rules(Path(sys.argv[1]))
