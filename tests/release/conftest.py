"""Policies, states and sights of a release, small."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from controlplane.evidence.verdict import Outcome, Said, Verdict
from controlplane.policy.documents import Match
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.release import point
from controlplane.release.seen import Propagation, Seen
from controlplane.release.state import Approval, Phase, ReleaseState, Stage

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAFF = Match.model_validate({"cookie": {"name": "staff", "equals": "yes"}})
ENDPOINTS = {"v1": ("10.0.0.1:80",), "v2": ("10.0.0.2:80",)}


def step(name, share, *, segment="everyone", match=None, for_="10s"):
    return PinnedStep(name=name, segment=segment, match=match, share=share, for_=for_)


def policy(**over):
    steps = (
        step("staff", "100%", segment="staff", match=STAFF),
        step("ten", "10%"),
        step("all", "100%"),
    )
    return PinnedPolicy(**({"name": "careful", "steps": steps, "guard": {"for": "1m"}} | over))


def state(phase=Phase.PROGRESSING, **over):
    rules = over.pop("policy", None) or policy()
    base = {
        "name": "r",
        "attempt": 1,
        "service": "shop",
        "from_version": "v1",
        "to_version": "v2",
        "policy": rules,
        "salt": "r.1",
        "created_at": T0,
        "phase": phase,
        "stage": Stage.JUDGE,
        "step": len(rules.steps) if phase is Phase.GUARDING else 1 if phase is Phase.PROGRESSING else 0,
        "canary_endpoints": ENDPOINTS["v2"],
    }
    return point.noted(ReleaseState(**(base | over)), T0, "turnout")


def approved(state, name):
    """Return a release with somebody's consent to a step."""
    given = Approval(step=name, actor="ann", at=T0)
    return state.model_copy(update={"approvals": (*state.approvals, given)})


def verdict(outcome, metric="errors", segment="everyone", **numbers):
    said = Said(f"{metric} say {outcome}", tuple(numbers.items()))
    return Verdict(metric, segment, outcome, said, numbers.get("e_value"), numbers.get("threshold"))


def seen(**over):
    """Return a sight in which all is well; one interval of 10 s."""
    base = {
        "elapsed": timedelta(seconds=10),
        "propagation": Propagation(("a", "b"), ("a", "b")),
        "split_agrees": True,
        "verdicts": (verdict(Outcome.PASS),),
        "endpoints": ENDPOINTS,
        "stable": "v1",
        "now": T0,
        "served": True,
    }
    return Seen(**(base | over))


@pytest.fixture(scope="session")
def make():
    return SimpleNamespace(
        T0=T0,
        STAFF=STAFF,
        ENDPOINTS=ENDPOINTS,
        step=step,
        policy=policy,
        state=state,
        approved=approved,
        verdict=verdict,
        seen=seen,
    )
