"""Commands by which an operator acts on releases: order, advance, approve, pause, roll back, switch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from controlplane.cli.client import (
    DEFAULT_SERVER,
    Actor,
    CommandError,
    Reason,
    Server,
    console,
    get,
    me,
    parsed,
    post,
)
from controlplane.policy.values import parse_duration
from controlplane.web.asked import Act, Order, Resend, Switch
from controlplane.web.shown import ProxyShown, ReleaseShown, ServiceShown

Past = Annotated[
    bool, typer.Option("--past-point-of-no-return", help="Go back although the point of no return is passed.")
]


class Goal(StrEnum):
    """What one can wait for."""

    PROGRESSING = "progressing"
    GUARDING = "guarding"
    PROMOTED = "promoted"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"
    ENDED = "ended"


REACHED: Mapping[Goal, frozenset[str]] = {
    Goal.PROGRESSING: frozenset({"progressing", "guarding", "promoted", "ending", "ended"}),
    Goal.GUARDING: frozenset({"guarding", "promoted"}),
    Goal.PROMOTED: frozenset({"promoted"}),
    Goal.RETIRED: frozenset({"promoted"}),
    Goal.ROLLED_BACK: frozenset({"rolled_back"}),
    Goal.ENDED: frozenset({"promoted", "rolled_back", "ended"}),
}
ACTIONS = {
    "advance": "Go one step on, without waiting for evidence; from the guard: promote.",
    "end": "End an A/B test now: everyone returns to the old version, and the result stays.",
    "pause": "Stop a release where it is; a failing canary is still rolled back.",
    "promote": "Go all the way now: the new version becomes stable.",
    "resume": "Let a paused or frozen release go on.",
    "retry": "Run an order that went back or ended again: a new attempt, with other users and new evidence.",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="release")(release)
    for action, text in ACTIONS.items():
        app.command(name=action, help=text)(_command(action))
    app.command()(approve)
    app.command()(rollback)
    app.command()(undo)
    app.command()(wait)
    app.command()(switch)
    app.command()(resend)


def release(
    service: str,
    to: str,
    policy: Annotated[str, typer.Option("--policy", "-p", help="Name of the policy.")],
    name: Annotated[str | None, typer.Option(help="Name of the release; by default SERVICE-VERSION.")] = None,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Release VERSION of SERVICE under a policy, from what is stable now; an emergency needs a --reason."""
    order = Order(service=service, to=to, policy=policy, name=name, actor=actor or me(), reason=reason)
    shown = post(server, "/v1/releases", order, ReleaseShown)
    console.line(
        f"release {shown.name}: {shown.service} {shown.from_version} -> {shown.to_version},"
        f" {'EMERGENCY, ' * shown.emergency}{shown.phase}"
    )


def approve(
    name: str,
    step: Annotated[str, typer.Option(help="Which step; by default the next that needs it.")] = "",
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Consent to a step that the policy lets begin only with an approval; also ahead of its time."""
    _say(server, name, "approve", Act(actor=actor or me(), reason=reason, step=step))


def rollback(
    name: str,
    past_point_of_no_return: Past = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Take every request back to the stable version, now."""
    act = Act(actor=actor or me(), reason=reason, past_point_of_no_return=past_point_of_no_return)
    _say(server, name, "rollback", act)


def undo(
    name: str,
    past_point_of_no_return: Past = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Go back to what was stable before the last promotion; NAME is the service or the release."""
    act = Act(actor=actor or me(), reason=reason, past_point_of_no_return=past_point_of_no_return)
    shown = post(server, f"/v1/undo/{name}", act, ServiceShown)
    console.line(f"service {shown.name}: stable is {shown.stable}")


def wait(
    name: str,
    for_: Annotated[Goal, typer.Option("--for", help="What to wait for.")] = Goal.PROMOTED,
    timeout: Annotated[str, typer.Option(help="How long at most, such as 30m.")] = "1h",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Wait until a release has come so far: status 0; 1 if it never will; 3 when the time is over."""
    until = time.monotonic() + parsed("--timeout", parse_duration, timeout).total_seconds()
    while True:
        shown = get(server, f"/v1/releases/{name}", ReleaseShown)
        lost = bool(shown.undone) and for_ in (Goal.PROMOTED, Goal.RETIRED)
        sure = shown.retired if for_ is Goal.RETIRED else shown.phase == "promoted" or not shown.unconfirmed
        if shown.phase in REACHED[for_] and not lost and sure:
            console.line(f"release {name}: {for_}")
            return
        if shown.ended_at is not None and (lost or shown.phase not in REACHED[for_]):
            said = f"release {name!r} is {shown.phase}: it will not be {for_}; {shown.because}"
            raise CommandError(f"{said}; {shown.onward}" if shown.onward else said)
        if time.monotonic() >= until:
            halt = f" and {shown.halt}" if shown.halt else ""
            where = f"{shown.phase}{halt}, at {shown.step}"
            raise CommandError(f"release {name!r} is {where}, after {timeout}: {shown.because}", 3)
        time.sleep(0.5)


def switch(
    service: str,
    version: str,
    past_point_of_no_return: Past = False,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Make VERSION of SERVICE stable at once; a release of it is promoted, any other rolled back."""
    act = Switch(
        version=version,
        actor=actor or me(),
        reason=reason,
        past_point_of_no_return=past_point_of_no_return,
    )
    shown = post(server, f"/v1/services/{service}/switch", act, ServiceShown)
    console.line(f"service {shown.name}: stable is {shown.stable}")


def resend(node: str, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER) -> None:
    """Send the proxy NODE again what it refused, once it was put right: its streams begin anew."""
    wanted = Resend(node=node, actor=actor or me(), reason=reason)
    post(server, "/v1/proxies/resend", wanted, tuple[ProxyShown, ...])
    console.line(f"proxy {node}: begins anew; `turnout get proxies` shows what it says")


def _command(action: str) -> Callable[..., None]:
    def act(name: str, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER) -> None:
        _say(server, name, action, Act(actor=actor or me(), reason=reason))

    return act


def _say(server: str, name: str, action: str, act: Act) -> None:
    shown = post(server, f"/v1/releases/{name}/{action}", act, ReleaseShown)
    halt = f" ({shown.halt})" if shown.halt else ""
    console.line(f"release {shown.name}: {shown.phase}{halt}, {shown.because}")
