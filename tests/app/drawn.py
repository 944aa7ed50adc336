"""Policies and orders that Hypothesis draws: every field of a policy that changes where a release goes."""

from __future__ import annotations

from hypothesis import strategies as st

STEPS = {
    "staff": 'segment: {cookie: {name: staff, equals: "yes"}}, share: 100%',
    "beta": 'segment: {cookie: {name: beta, equals: "1"}}, share: 50%',
    "ten": "everyone: 10%",
    "half": "everyone: 50%",
    "all": "everyone: 100%",
}
LADDERS = (("staff", "ten", "all"), ("beta", "ten", "half", "all"), ("ten", "all"), ("half", "all"), ("all",))
POINTS = ("start", "before_step", "judging", "before_promote", "end", "failure")
TOLD = (
    "ordered, started, advanced, guarding, promoted, rolling_back, rolled_back, stepped_back, frozen, paused"
)
STAYING = ("{do: rollback}", "{do: hold}", "{do: freeze}")  # what a group may do
FAILING = (
    *STAYING,
    "{do: rollback, retry: {after: 20s, times: 1}}",
    "{do: step_back}",
    "{do: step_back, retry: {after: 20s, times: 2}}",
    "{do: step_back, retry: {after: 10s, times: 1}}",
)
MIRRORS = ("{share: 10%}", "{segment: {header: {name: x-m, present: true}}, share: 50%}")
WINDOWS = (
    '[{from: "09:00", to: "16:00"}]',
    '[{from: "22:00", to: "06:00", zone: Asia/Kolkata}, {from: "11:00", to: "13:00"}]',
)


def seldom(*values, weight=3):
    """Draw None mostly, else one of the values."""
    return st.sampled_from([None] * weight * len(values) + list(values))


@st.composite
def steps(draw, ladder, failing, irreversible):
    lines = []
    for name in ladder:
        parts = [f"name: {name}, {STEPS[name]}, for: {draw(st.sampled_from(['0s', '5s', '10s']))}"]
        approve = draw(
            seldom("{}", "{expires: 30s, on_expiry: rollback}", "{expires: 30s, on_expiry: freeze}")
        )
        if name == irreversible:
            parts.append("irreversible: {because: a migration goes with it}")
            approve = approve or "{}"
        if approve:
            parts.append(f"approve: {approve}")
        if mirror := draw(seldom(*MIRRORS)):
            parts.append(f"mirror: {mirror}")
        if within := draw(seldom("60s", weight=6)):
            parts.append(f"within: {within}")
        if fails := draw(seldom(*failing, weight=2)):
            parts.append(f"on_failure: {fails}")
        lines.append(f"  - {{{', '.join(parts)}}}\n")
    return "".join(lines)


@st.composite
def policies(draw, name, *, grouped=False):
    """Return the text of a policy."""
    failing = STAYING if grouped else FAILING
    ladder = draw(st.sampled_from(LADDERS))
    irreversible = draw(st.sampled_from([None] * 6 + list(ladder)))
    hold_back = "0%" if irreversible else draw(st.sampled_from(["2%", "2%", "0%"]))
    text = f"kind: Policy\nname: {name}\nsteps:\n{draw(steps(ladder, failing, irreversible))}"
    text += "conditions: [{errors: {against: baseline, margin: 25%}}, {latency: off}, {client_errors: off},"
    text += " {success_rate: {at_least: 90%}}]\n"
    keep = draw(seldom("80%"))
    text += f"guard: {{for: {draw(st.sampled_from(['5s', '15s']))}, hold_back: {hold_back}"
    text += f", keep_endpoints: {keep}}}\n" if keep else "}\n"
    text += f"on_failure: {draw(st.sampled_from(failing))}\n"
    text += f"on_failed_dependency: {draw(st.sampled_from(['hold', 'rollback']))}\n"
    if deadline := draw(seldom("4m", "20m")):
        text += f"deadline: {deadline}\n"
    text += f"on_timeout: {draw(st.sampled_from(['hold', 'rollback']))}\n"
    if windows := draw(seldom(*WINDOWS, weight=1)):
        text += f"windows: {windows}\n"
    if spoilt := draw(seldom(50, 5000)):
        text += f"budget: {{failed: {spoilt}}}\n"
    if unsure := draw(seldom("advance", "rollback")):
        text += f"when_unsure: {{after: 20s, do: {unsure}}}\n"
    if points := draw(st.sets(st.sampled_from(POINTS), max_size=2)):
        hooks = (f"{{at: {point}, url: 'https://ask.example.com/{point}'}}" for point in sorted(points))
        text += f"hooks: [{', '.join(hooks)}]\n"
    if draw(st.booleans()):
        text += f"notify: [{{webhook: 'https://tell.example.com/all', on: [{TOLD}]}}]\n"
    return text + ("emergency: true\n" if draw(seldom(True, weight=8)) else "")


def order(name, service, from_, to, policy, **more):
    """Return the text of a Release; ``more`` are its other fields."""
    lines = {"kind": "Release", "name": name, "service": service, "from": from_, "to": to, "policy": policy}
    lines |= {"reason": "somebody wants it", "start": "auto"} | {k: v for k, v in more.items() if v}
    lines["start"] = lines.pop("start")  # last
    return "".join(f"{key}: {value}\n" for key, value in lines.items())
