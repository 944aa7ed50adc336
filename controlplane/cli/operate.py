"""Commands by which an operator acts on releases: order, advance, approve, pause, roll back, switch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from controlplane.cli.client import DEFAULT_SERVER, Actor, Reason, Server, console, me, post
from controlplane.web.port import Act, Order, ReleaseShown, ServiceShown, Switch

ACTIONS = {
    "advance": "Go one step on, without waiting for evidence; from the guard: promote.",
    "pause": "Stop a release where it is; a failing canary is still rolled back.",
    "promote": "Go all the way now: the new version becomes stable.",
    "resume": "Let a paused or frozen release go on.",
    "retry": "Run a rolled back order again: a new attempt, with other users and new evidence.",
    "rollback": "Take every request back to the stable version, now.",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="release")(release)
    for action, text in ACTIONS.items():
        app.command(name=action, help=text)(_command(action))
    app.command()(approve)
    app.command()(switch)


def release(
    service: str,
    to: str,
    policy: Annotated[str, typer.Option("--policy", "-p", help="Name of the policy.")],
    name: Annotated[str | None, typer.Option(help="Name of the release; by default SERVICE-VERSION.")] = None,
    reason: Reason = "",
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Release VERSION of SERVICE under a policy, from what is stable now."""
    order = Order(service=service, to=to, policy=policy, name=name, actor=actor or me(), reason=reason)
    shown = post(server, "/v1/releases", order, ReleaseShown)
    console.line(
        f"release {shown.name}: {shown.service} {shown.from_version} -> {shown.to_version}, {shown.phase}"
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


def switch(
    service: str, version: str, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER
) -> None:
    """Make VERSION of SERVICE stable at once; a release of it is promoted, any other rolled back."""
    act = Switch(version=version, actor=actor or me(), reason=reason)
    shown = post(server, f"/v1/services/{service}/switch", act, ServiceShown)
    console.line(f"service {shown.name}: stable is {shown.stable}")


def _command(action: str) -> Callable[..., None]:
    def act(name: str, reason: Reason = "", actor: Actor = "", server: Server = DEFAULT_SERVER) -> None:
        _say(server, name, action, Act(actor=actor or me(), reason=reason))

    return act


def _say(server: str, name: str, action: str, act: Act) -> None:
    shown = post(server, f"/v1/releases/{name}/{action}", act, ReleaseShown)
    halt = f" ({shown.halt})" if shown.halt else ""
    console.line(f"release {shown.name}: {shown.phase}{halt}, {shown.because}")
