from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.demo.fault import SEGMENTS, Fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("none", Fault()),
        ("errors=10%", Fault("errors", share=0.1)),
        ("errors=0.5%", Fault("errors", share=0.005)),
        ("latency=x2", Fault("latency", factor=2.0)),
        ("latency=x1.5@segment=eu", Fault("latency", factor=1.5, segment="eu")),
        ("crash", Fault("crash")),
        ("crash@guarding", Fault("crash", phase="guarding")),
        ("both=10%", Fault("both", share=0.1)),
        ("silent", Fault("silent")),
        ("errors=10%@guarding", Fault("errors", share=0.1, phase="guarding")),
        ("errors=50%@segment=beta", Fault("errors", share=0.5, segment="beta")),
        ("errors=50%@segment=beta@guarding", Fault("errors", share=0.5, segment="beta", phase="guarding")),
    ],
)
def test_parse_understands_every_form(text, fault):
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", "errors", "errors=", "errors=10", "errors=0%", "errors=101%", "errors=-1%"),
        *("errors=10%@", "errors=10%@later", "errors=10%@segment", "errors=10%@segment=mars"),
        *("errors=10%@guarding=1", "errors=10%@guarding@guarding", "errors=10%@segment=beta@segment=eu"),
        *("latency=2", "latency=x1", "latency=x0", "latency=10%", "both=x2", "both"),
        *("crash=1", "crash@segment=beta", "silent@segment=beta", "none@guarding", "none=1", "errors=x2"),
    ],
)
def test_parse_refuses_with_the_allowed_forms(text):
    with pytest.raises(ValueError, match=r"is not a fault; allowed: none, errors=10%"):
        Fault.parse(text)


@given(
    st.sampled_from(["errors", "both", "latency", "crash", "silent"]),
    st.integers(1, 10_000),
    st.sampled_from([None, *SEGMENTS]),
    st.sampled_from(["progressing", "guarding"]),
)
def test_text_of_a_fault_parses_to_the_same_fault(kind, hundredths, segment, phase):
    fault = Fault(
        kind,
        share=hundredths / 10_000 if kind in ("errors", "both") else 0.0,
        factor=1 + hundredths / 100 if kind == "latency" else 1.0,
        segment=segment if kind not in ("crash", "silent") else None,
        phase=phase,
    )

    again = Fault.parse(str(fault))

    assert again.share == pytest.approx(fault.share)
    assert (again.kind, again.segment, again.phase) == (fault.kind, fault.segment, fault.phase)
    assert again.factor == pytest.approx(fault.factor)


def test_fault_comes_with_its_phase():
    early, late = Fault.parse("errors=10%"), Fault.parse("errors=10%@guarding")

    assert [early.present(phase) for phase in ("", "waiting", "progressing", "guarding")] == [
        False,
        False,
        True,
        True,
    ]
    assert [late.present(phase) for phase in ("waiting", "progressing", "guarding")] == [False, False, True]
    assert not Fault().present("progressing")
