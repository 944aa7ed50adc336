import json

import pytest

POLICY = """
kind: Policy
name: quick
steps:
  - {name: ten, everyone: 10%, for: 5s}
  - {name: all, everyone: 100%, for: 5s}
conditions: []
guard: {for: 5s, hold_back: 2%}
"""
SMALL = ("--releases", 4, "--interval", "1s", "--history", "1m", "--rps", 300, "--noise", "iid")


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


def test_simulate_prints_figures_that_a_seed_repeats(turnout, policy):
    said = [
        turnout("simulate", policy, *SMALL, "-o", "json", "--fault", "errors=20%", "--jobs", jobs)
        for jobs in (1, 2)
    ]

    assert [one.status for one in said] == [0, 0]
    assert said[0].out == said[1].out
    found = json.loads(said[0].out)["faults"]["errors=20%"]
    assert found["rolled_back"]["share"] == 1.0
    assert found["detected"]["median"] < 30


def test_simulate_tells_false_rollbacks_from_misses(turnout, policy):
    said = turnout(
        "simulate", policy, *SMALL, "--fault", "none", "--fault", "errors=20%+lost=5%", "--jobs", 1
    )

    assert said.status == 0
    assert "none (good)" in said.lines
    assert any(line.startswith("  promoted        100 %") for line in said.lines)
    assert any("rolled back" in line and line.endswith("false") for line in said.lines)
    assert "errors=20%+lost=5% (bad)" in said.lines


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--fault", "bad"), "is not a fault"),
        (("--noise", "loud"), "known: iid, mod, harsh"),
        (("--policy", "slow"), "known: quick"),
        (("--fault", "errors=5%@segment=beta"), "no segment 'beta'; there are: none"),
        (("--fault", "silent@proxy=p3"), "no proxy 'p3'; there are: p0, p1, p2"),
        (("--interval", "1ms"), "between 500ms and 1m"),
    ],
)
def test_simulate_says_what_is_allowed(turnout, policy, more, problem):
    said = turnout("simulate", policy, *more)

    assert said.status == 2
    assert problem in said.err
