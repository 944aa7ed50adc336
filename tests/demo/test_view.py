from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from controlplane.demo.load import LoadCounts, Seen
from controlplane.demo.status import DecisionStatus, DemoStatus, ProofStatus, ProxyStatus, StepStatus
from controlplane.demo.view import LineView, LiveView, draw

STATUS = DemoStatus(
    service="shop",
    release="shop-v2",
    from_="v1",
    to="v2",
    phase="progressing",
    seconds=47.3,
    fault="errors=10%",
    activity="judging, about 12 s to go at this traffic",
    steps=(
        StepStatus("beta", "beta", "50%", "done"),
        StepStatus("cohort", "cohort 10–15%", "100%", "done"),
        StepStatus("ten", "everyone", "10%", "done"),
        StepStatus("quarter", "everyone", "25%", "now"),
        StepStatus("half", "everyone", "50%", "todo"),
        StepStatus("all", "everyone", "100%", "todo"),
    ),
    proxies=(
        ProxyStatus("edge-1", 283_000, 283_000, 291_000, 8423, 17),
        ProxyStatus("edge-2", 283_000, 201_000, None, 9120, 0, "has not acknowledged for 2 s"),
    ),
    harm=7.4,
    harm_limit=100,
    proofs=(
        ProofStatus("errors", "not yet", 0.62, "v2 0.3 % against v1 0.2 %, 1,940 requests"),
        ProofStatus("latency p95", "pass", 1.0, "0.1 % slower than 50 ms, 5 % allowed"),
        ProofStatus("success rate", "fail", 0.2, "89.8 %, at least 97 % wanted"),
    ),
    load=LoadCounts(
        requests=17_543,
        failed=40,
        canary=2711,
        in_flight=6,
        rate=401.2,
        versions=(Seen("v1", 14_832, 31, 13, 36, 42), Seen("v2", 2711, 9, 13, 36, 41)),
        users=1703,
        users_on_canary=402,
    ),
    decisions=(
        DecisionStatus(9.0, "advance", "beta passed: errors, latency p95, success rate"),
        DecisionStatus(20.1, "advance", "cohort passed"),
        DecisionStatus(33.7, "advance", "ten passed"),
    ),
)
DONE = replace(
    STATUS,
    phase="rolled back",
    activity="every proxy has acknowledged",
    harm=412.0,
    steps=tuple(replace(s, mark="failed" if s.mark == "now" else s.mark) for s in STATUS.steps),
    conclusion=(
        "rolled back",
        "errors of v2 in everyone: 10.2 % against 0.2 %",
        "decided 6 s after the first canary request",
    ),
)


def text(status: DemoStatus, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(draw(status))
    return console.export_text()


def test_picture_has_what_an_operator_asks_for():
    picture = text(STATUS)

    for part in (
        *("shop", "v1 → v2", "progressing 4/6 quarter", "0:47", "errors=10%", "judging"),
        *("50%", "cohort 10–15%", "everyone", "28.3 %", "20.1 %", "29.1 %", "has not acknowledged"),
        *(
            "e 7.4",
            "not yet",
            "pass",
            "fail",
            "401 requests/s",
            "402 of 1,703",
            "0 unexplained",
            "0 moved back",
        ),
        *("0:09", "advance", "ten passed"),
    ):
        assert part in picture, part


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_picture_fits_the_terminal(width):
    for status in (STATUS, DONE):
        lines = text(status, width).splitlines()

        assert max(len(line.rstrip()) for line in lines) <= min(width, 100)
        assert len(lines) < 40


def test_a_usual_terminal_has_all_that_decides():
    console = Console(file=io.StringIO(), width=80, height=24, record=True)

    console.print(draw(STATUS, 80, 24))
    lines = console.export_text().splitlines()

    assert len(lines) <= 24
    for part in ("quarter", "28.3 %", "e 7.4", "success rate", "0 unexplained", "ten passed"):
        assert any(part in line for line in lines), part
    assert len(text(STATUS).splitlines()) > 24  # where there is room, nothing is left out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_activity_is_cut_and_where_the_release_is_never(width):
    activity = "the observed split does not agree with the one asked for, " * 3
    at = replace(STATUS, activity=activity, release="shop-v2-with-a-name-that-does-not-fit" * 2)
    title, doing, *_ = text(at, width).splitlines()[1:]

    assert title.rstrip("│ ").endswith("progressing 4/6 quarter   0:47")
    assert "v1 → v2" in title
    assert doing.rstrip("│ ").endswith("fault errors=10%")
    assert "the observed split" in doing
    assert "…" in doing


def test_conclusion_says_what_happened_and_why():
    picture = text(DONE)

    assert "rolled back" in picture
    assert "10.2 % against 0.2 %" in picture
    assert "✕" in picture


def test_a_conclusion_that_is_longer_than_a_line_goes_on_under_itself():
    long = "why     " + ", ".join(f"condition-{number}" for number in range(12))
    picture = text(replace(DONE, conclusion=("rolled back", long, "took    9 s")))

    first, second = (line.partition("condition-")[0] for line in picture.splitlines() if "condition-" in line)
    assert len(first) == len(second)
    assert "why" in first
    assert "took" not in second


def test_few_failures_are_not_told_as_none():
    seen = Seen("v1", 12_071, 16), Seen("v2", 8160, 4), Seen("v3", 90, 90), Seen("v4", 50)
    picture = text(replace(STATUS, load=LoadCounts(versions=seen)))

    for part in ("16 (0.13 %)", "4 (0.049 %)", "90 (100 %)", "0 (0 %)"):
        assert part in picture, part


@pytest.mark.parametrize("harm", [0.0, 1e-9, 1.0, 99.9, 100.0, 1e300])
def test_any_harm_can_be_drawn(harm):
    assert "harm" in text(replace(STATUS, harm=harm))


def test_picture_before_anything_is_known():
    empty = replace(STATUS, steps=(), proxies=(), proofs=(), load=LoadCounts(), decisions=(), phase="waiting")

    assert "waiting" in text(empty)
    assert empty.step == 0


def test_names_from_outside_are_text_not_markup():
    assert "[red]x[/red]" in text(replace(STATUS, activity="[red]x[/red]"))


def test_lines_tell_each_change_once():
    out = io.StringIO()
    view = LineView(Console(file=out, width=80))

    with view:
        view.show(STATUS)
        view.show(replace(STATUS, seconds=47.6))
        view.show(
            replace(
                STATUS, seconds=48.0, decisions=(*STATUS.decisions, DecisionStatus(33.7, "hold", "at once"))
            )
        )
        view.show(DONE)
    lines = out.getvalue().splitlines()

    assert sum("ten passed" in line for line in lines) == 1
    assert sum("progressing 4/6 quarter: judging" in line for line in lines) == 1
    assert sum("hold: at once" in line for line in lines) == 1
    assert lines[-1].endswith("decided 6 s after the first canary request")


def test_lines_tell_now_and_then_of_what_only_counts_on():
    out = io.StringIO()
    view = LineView(Console(file=out, width=80))
    held = (*STATUS.decisions, DecisionStatus(40.0, "hold", "too few requests: 10"))

    with view:
        for second in range(60):
            activity = f"judge: too few requests: {10 + second}"
            view.show(replace(STATUS, decisions=held, seconds=40.0 + second, activity=activity))
    lines = [line for line in out.getvalue().splitlines() if "too few" in line]

    assert len(lines) == 6
    assert lines[0].endswith("hold: too few requests: 10")
    assert lines[1].endswith("judge: too few requests: 20")


def test_live_view_ends_with_the_last_picture():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, record=True)

    with LiveView(console) as view:
        view.show(STATUS)
        view.show(DONE)

    assert "rolled back" in console.file.getvalue()
