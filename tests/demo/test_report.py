from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.demo.load import LoadCounts
from controlplane.demo.report import Facts, Reason, last_line, report

START = datetime(2026, 11, 24, tzinfo=UTC)
FACTS = Facts(
    outcome="rolled_back",
    reason=Reason("errors", "beta", "e-value 412 reached 100"),
    started=START,
    ended=START + timedelta(seconds=21.5),
    harmed=START + timedelta(seconds=2),
    decided=START + timedelta(seconds=9.25),
    load=LoadCounts(requests=4000, failed=41, unexplained=1, canary=300, users=900),
    moved_back=0,
    proxies=2,
    envoy_version="1.40.0",
    steps=("beta",),
)


def test_last_line_has_everything_that_scripts_read():
    assert json.loads(last_line(FACTS)) == {
        "outcome": "rolled_back",
        "reason": {"metric": "errors", "segment": "beta", "rule": "e-value 412 reached 100"},
        "seconds": 21.5,
        "detect_seconds": 7.25,
        "requests": 4000,
        "failed_requests": 41,
        "unexplained_failures": 1,
        "canary_requests": 300,
        "users": 900,
        "users_moved_back": 0,
        "proxies": 2,
        "envoy_version": "1.40.0",
        "steps": ["beta"],
    }
    assert "\n" not in last_line(FACTS)


def test_nothing_was_detected_without_a_rollback():
    for outcome in ("promoted", "undecided"):
        assert report(replace(FACTS, outcome=outcome))["detect_seconds"] is None


def test_rollback_before_any_canary_request_counts_from_the_start():
    assert report(replace(FACTS, harmed=None))["detect_seconds"] == 9.25
