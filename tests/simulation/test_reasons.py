"""What a decision says must be so by the very counts that it shows."""

from __future__ import annotations

import re

import pytest

from controlplane.evidence import rising
from controlplane.evidence.account import EMPTY, Account
from controlplane.evidence.evidence import Evidence
from controlplane.evidence.likelihood import log_mean_exp
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.loading import load
from controlplane.policy.pinning import pin
from controlplane.simulation.faults import Fault
from controlplane.simulation.loop import watch
from controlplane.simulation.traffic import Model

POLICY = """
kind: Policy
name: long
steps:
  - {name: ten, everyone: 10%}
  - {name: half, everyone: 50%}
  - {name: all, everyone: 100%}
conditions: [CONDITIONS]
guard: {for: 2h, hold_back: 2%}
"""
ONLY = "{latency: off}, {client_errors: off}"


def release(fault, conditions=ONLY, seed=7, **model):
    """Yield the intervals of a simulated release."""
    found = load({"p.yaml": POLICY.replace("CONDITIONS", conditions).encode()})
    assert not found.errors
    (policy,) = found.catalog.policies()
    wrong = tuple(Fault.parse(part) for part in fault.split("+")) if fault else ()
    drawn = Model(**({"rps": 100, "interval": 15.0, "history": 600, "longest": 3600} | model))
    return watch(pin(policy, found.catalog), drawn, wrong, seed)


def ended(*given, **model):
    """Return the record of what ended a release, and the verdict that did."""
    *_, last = release(*given, **model)
    (record,) = last.turn.records
    failed = [v for v in record.numbers["verdicts"] if v["outcome"] == "fail"]
    assert record.action == "rollback"
    return record, failed[0]


def rates(reason):
    """Return the canary's and the baseline's share of each of the texts' pairs."""
    pair = r"canary \d+ of \d+ \(([\d.]+) %\), baseline \d+ of \d+ \(([\d.]+) %\)"
    return [(float(canary), float(baseline)) for canary, baseline in re.findall(pair, reason)]


def test_a_late_rollback_is_shown_by_what_came_since_its_evidence_rose():
    record, verdict = ended("outage=20%@1m-3m+errors=5%@45m")

    (canary, baseline), (_, all_of_baseline) = rates(record.reason)
    assert canary > 2 > baseline
    assert "above the baseline's: in the last " in record.reason
    assert all_of_baseline > 2  # which by itself would say the contrary
    numbers = verdict["numbers"]
    assert numbers["canary_rate"] > 2 * numbers["baseline_rate"]
    assert numbers["release_canary_requests"] > 10 * numbers["canary_requests"]
    assert 0 < numbers["seconds"] < 300


def test_slowness_that_begins_late_is_shown_by_what_came_since_its_evidence_rose():
    record, verdict = ended("latency=x3@45m", "{client_errors: off}")

    shown = [float(share) for share in re.findall(r"([\d.]+) % of", record.reason)]
    canary, baseline = shown[:2]
    assert canary > 2 * baseline
    assert verdict["numbers"]["canary_rate"] > 2 * verdict["numbers"]["baseline_rate"]


def test_what_shows_a_fault_survives_a_restart():
    *_, last = release("errors=5%@10m")
    before = last.turn.after.watch.evidence

    assert before.accounts["errors"].rise
    assert Evidence.from_json(before.to_json()) == before


def test_evidence_of_an_older_store_still_names_the_fault():
    *_, last = release("errors=5%@10m")
    data = last.turn.after.watch.evidence.to_json()
    for account in data["accounts"].values():
        for field in ("rise", "rising"):
            account.pop(field, None)

    account = Evidence.from_json(data).accounts["errors"]

    assert (account.rise, account.rising) == ({}, 0.0)
    assert account.whole == last.turn.after.watch.evidence.accounts["errors"].whole


def test_the_share_of_slow_requests_is_that_of_one_edge():
    text = r"slower than (\d+) ms were ([\d.]+) % of (\d+) canary requests"
    compared, truth, at = 0, [0] * (1 + len(EDGES_MS)), None
    for now in release(None, "{client_errors: off}", seed=5, interval=5.0, history=1800, longest=1500):
        state = now.turn.after.state
        if (state.step, state.phase) != at:
            at, truth = (state.step, state.phase), [0] * (1 + len(EDGES_MS))
            continue
        for cell, tally in now.observation.cells:
            if cell.version == state.to_version:
                truth = [a + b for a, b in zip(truth, (tally.requests, *tally.slower), strict=True)]
        said = [re.search(text, v.reason) for v in now.turn.after.verdicts if v.metric == "latency"]
        for edge, share, requests in (found.groups() for found in said if found and truth[0] > 3000):
            compared += 1
            slow = 100 * truth[1 + EDGES_MS.index(int(edge))] / truth[0]
            assert abs(float(share) - slow) < 0.1 * slow, (now.second, requests)
    assert compared > 50


@pytest.mark.parametrize("interval", [5.0, 60.0])
def test_the_time_that_a_pass_still_takes_is_right_for_intervals_of_any_length(interval):
    intervals = release(None, rps=100, interval=interval, noise="iid", longest=900)
    first = (now.turn.after for now in intervals if now.turn.after.state.step == 0)
    verdicts = [v for after in first for v in after.verdicts if v.seconds_needed]
    rates = [v.requests_needed / v.seconds_needed for v in verdicts]

    assert rates
    assert all(rate == pytest.approx(10, rel=0.4) for rate in rates)  # a tenth of 100 a second


def test_at_the_begin_of_a_step_the_time_is_that_of_its_own_traffic():
    """Of late most requests are of the step before, which had a fifth of the share."""
    intervals = release(None, rps=100, interval=5.0, noise="iid", longest=600)
    second = (now.turn.after for now in intervals if now.turn.after.state.step == 1)
    found = [v for after in second for v in after.verdicts if v.seconds_needed][:6]

    assert found
    assert [v.requests_needed / v.seconds_needed for v in found] == [pytest.approx(50, rel=0.15)] * len(found)


def test_with_a_request_in_a_minute_and_a_half_the_time_is_no_guess():
    intervals = release(None, rps=0.12, interval=60.0, noise="iid", longest=10 * 3600)
    later = [now.turn.after for now in intervals if now.second > 4 * 3600 and now.turn.after.state.step == 0]
    found = [v for after in later for v in after.verdicts if v.metric == "errors" and v.requests_needed]

    assert len(found) == len(later) > 300
    rates = [v.requests_needed / v.seconds_needed for v in found]
    assert min(rates) > 0.012 / 2
    assert max(rates) < 0.012 * 2
    assert not any(v.lacking for v in found)


def test_an_older_store_knows_of_late_what_short_intervals_add_up_to():
    data = EMPTY.to_json()
    del data["lately"]

    assert Account.from_json(data).lately == pytest.approx(43.28, abs=0.01)


def loudest(account):
    """Return the edge in ms with most evidence."""
    return max(account.processes, key=lambda label: log_mean_exp(account.processes[label]))


@pytest.mark.parametrize(("latency", "fault"), [(120, "latency=x1.5"), (33, "latency=x2@10m")])
def test_slowness_is_shown_at_the_edge_that_has_its_evidence(latency, fault):
    seen = list(release(fault, "{client_errors: off}, {errors: off}", seed=11, latency=latency))
    after = seen[-1].turn.after
    (verdict,) = (v for v in after.verdicts if v.metric == "latency")

    edge, canary, requests = re.search(
        r"slower than (\d+) ms were ([\d.]+) % of (\d+) canary", verdict.reason
    ).groups()
    assert edge == loudest(after.watch.evidence.accounts["latency"])
    truth = [0, 0]
    for now in reversed(seen):  # until so many are found, and no other number
        tallies = [tally for cell, tally in now.observation.cells if cell.version == "v2"]
        truth[0] += sum(tally.requests for tally in tallies)
        truth[1] += sum(tally.slower[EDGES_MS.index(int(edge))] for tally in tallies)
        if truth[0] >= int(requests):
            break
    assert truth[0] == int(requests) == dict(verdict.numbers)["canary_requests"]
    assert truth[1] == dict(verdict.numbers)["canary_slow"]
    assert float(canary) == pytest.approx(100 * truth[1] / truth[0], rel=0.005)


def test_slowness_of_an_older_store_is_shown_at_the_edge_that_was_counted():
    *_, last = release("latency=x1.5", "{client_errors: off}, {errors: off}", seed=11, latency=120)
    whole = last.turn.after.watch.evidence
    data = whole.to_json()
    state = data["accounts"]["latency"]["state"]
    for label in [label for label in state if label.startswith(rising.LABEL)]:
        del state[label]

    older = Evidence.from_json(data).accounts["latency"]

    assert rising.shown(older, "edge of the rise") is older
    assert rising.shown(whole.accounts["latency"], "edge of the rise").rise != older.rise
    assert Evidence.from_json(whole.to_json()) == whole


def test_doubt_is_shown_by_what_has_raised_it():
    for now in release("latency=x1.3", "{client_errors: off}, {errors: off}", seed=11, latency=140):
        account = now.turn.after.watch.evidence.accounts.get("latency")
        said = [v.reason for v in now.turn.after.verdicts if v.metric == "latency" and v.doubtful]
        if said:
            break

    shown = [float(share) for share in re.findall(r"([\d.]+) % of", said[0])]
    assert "suspiciously slow: in the last " in said[0]
    assert f"slower than {loudest(account)} ms were" in said[0]
    assert shown[0] > 1.3 * shown[1]
