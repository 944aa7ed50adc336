"""`turnout get …` and `turnout explain`: what there is, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from controlplane.cli.client import (
    DEFAULT_SERVER,
    CommandError,
    Output,
    Server,
    Watch,
    check_output,
    clock,
    console,
    get,
    post,
)
from controlplane.cli.listing import Ladder, Listing, show
from controlplane.policy.values import format_duration
from controlplane.release.ports import Record
from controlplane.web.asked import Asked
from controlplane.web.shown import (
    Explained,
    ProxyShown,
    ReleaseShown,
    ResultShown,
    ServiceShown,
    StepShown,
    VerdictShown,
)

T = TypeVar("T")
LADDER = {
    "done": ("●", "green"),
    "current": ("◉", "bold cyan"),
    "todo": ("○", "dim"),
    "skipped": ("○", "dim"),
}
PHASES = {
    "promoted": "green",
    "rolled_back": "red",
    "rolling_back": "red",
    "ending": "cyan",
    "ended": "green",
    "guarding": "cyan",
    "progressing": "cyan",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Show services, releases and proxies.", no_args_is_help=True)
    for command in (services, releases, release, proxies, problems):
        group.command()(command)
    app.add_typer(group, name="get")
    app.command()(explain)


def services(server: Server = DEFAULT_SERVER, output: Output = "text", watch: Watch = False) -> None:
    """List services: hosts, versions, what is stable."""
    _show(
        lambda: get(server, "/v1/services", tuple[ServiceShown, ...]),
        lambda shown: Listing(
            ("service", "stable", "versions", "release", "fleets", "hosts"),
            [
                (s.name, _stable(s), _join(s.versions), s.release or "-", _join(s.fleets), _join(s.hosts))
                for s in shown
            ],
        ),
        output,
        watch,
    )


def releases(server: Server = DEFAULT_SERVER, output: Output = "text", watch: Watch = False) -> None:
    """List releases, newest first."""
    _show(
        lambda: get(server, "/v1/releases", tuple[ReleaseShown, ...]),
        lambda shown: Listing(
            ("release", "service", "from", "to", "phase", "step", "why"),
            [
                (r.name, r.service, r.from_version, r.to_version, _phase(r), r.step or "-", _why(r))
                for r in shown
            ],
        ),
        output,
        watch,
    )


def release(
    name: str, server: Server = DEFAULT_SERVER, output: Output = "text", watch: Watch = False
) -> None:
    """Show one release: steps, proxies, evidence."""
    _show(lambda: get(server, f"/v1/releases/{name}", ReleaseShown), release_view, output, watch)


def proxies(server: Server = DEFAULT_SERVER, output: Output = "text", watch: Watch = False) -> None:
    """List connected proxies: what they acknowledged, what they refused, their statistics."""
    _show(
        lambda: get(server, "/v1/proxies", tuple[ProxyShown, ...]),
        lambda shown: proxies_view(shown, datetime.now(UTC)),
        output,
        watch,
    )


def proxies_view(shown: Sequence[ProxyShown], now: datetime) -> Listing:
    """Show proxies: ``waits`` is how long a response is unanswered, ``age`` how long a stream is there.

    ``acked`` and ``nacked`` are the newest versions of all types: who lags behind has an older one.
    """
    heads = ("proxy", "fleet", "state", "waits", "acked", "nacked", "age", "envoy", "protocol")
    return Listing(
        (*heads, "statistics", "address", "problems"),
        [
            (
                p.id,
                p.fleet,
                p.state,
                _age(max((t.waiting_seconds or 0 for t in p.types), default=0)),
                _newest(t.acked for t in p.types),
                _newest(t.nacked for t in p.types),
                _age((now - p.connected_at).total_seconds()),
                p.version,
                p.protocol,
                p.statistics,
                p.address,
                _join(p.problems, "; "),
            )
            for p in shown
        ],
        spare=("address", "acked", "nacked", "age", "protocol", "envoy"),
    )


def problems(server: Server = DEFAULT_SERVER, output: Output = "text", watch: Watch = False) -> None:
    """List what is wrong now or needs a person, the worst first, with what to do."""
    _show(
        lambda: get(server, "/v1/problems", tuple[str, ...]),
        lambda shown: Group(*map(Text, shown or ("nothing is wrong",))),
        output,
        watch,
    )


def explain(
    name: Annotated[str, typer.Argument(help="A release.")] = "",
    request: Annotated[
        str, typer.Option(help="A request instead: 'GET https://shop.example.com/a x-staff: true'.")
    ] = "",
    fleet: Annotated[str, typer.Option(help="Whose proxies get the request; else any that know it.")] = "",
    source: Annotated[str, typer.Option(help="The address that the request comes from.")] = "",
    claim: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a verified token; again for more.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    output: Output = "text",
) -> None:
    """Say why a release is where it is, or which version a request gets and by which rule."""
    if bool(name) is bool(request):
        raise CommandError("explain takes either a release or --request", 2)
    if request:
        _explain_request(_asked(request, fleet, source, claim or []), server, check_output(output))
        return
    shown = get(server, f"/v1/releases/{name}", ReleaseShown)
    records = get(server, "/v1/records", tuple[Record, ...], {"release": name, "limit": 20})
    if check_output(output):
        console.json(
            {
                "release": shown.model_dump(mode="json"),
                "records": [r.model_dump(mode="json") for r in records],
            }
        )
        return
    shape = clock((*(r.at for r in records), datetime.now(UTC)))
    table = Listing(
        ("when", "who", "what", "step", "why"),
        [(f"{r.at:{shape}}", r.actor, r.action, r.step, r.reason) for r in records],
    )
    show(Group(release_view(shown), Text(), Text("decisions", "bold"), table))


def _asked(request: str, fleet: str, source: str, claims: list[str]) -> Asked:
    pairs = [claim.partition("=") for claim in claims]
    if wrong := next(("".join(pair) for pair in pairs if not pair[1]), None):
        raise CommandError(f"--claim: {wrong!r} is not NAME=VALUE", 2)
    known = {name: value for name, _, value in pairs}
    return Asked(request=request, fleet=fleet or None, source=source or None, claims=known)


def _explain_request(asked: Asked, server: str, as_json: bool) -> None:
    found = post(server, "/v1/explain", asked, Explained)
    if as_json:
        console.json(found.model_dump(mode="json"))
        return
    buckets = ", ".join(f"{start}-{end - 1}" for start, end in found.spans) or "none"
    rows = (
        ("version", found.version or "drawn for this request"),
        ("why", found.because),
        ("service", f"{found.service}, by its route {found.claim} on fleet {found.fleet}"),
        ("release", found.release or "none"),
        ("rule", f"{found.rule} of {found.rules}: segment {found.segment}, share {found.share}"),
        ("user", f"{found.user} (from {found.source})" if found.user is not None else "none"),
        ("bucket", "none" if found.bucket is None else f"{found.bucket}, salt {found.salt}"),
        ("canary's", f"buckets {buckets}"),
    )
    for head, text in rows:
        console.line(f"{head:<9} {text}")


def release_view(shown: ReleaseShown) -> RenderableType:
    """Return a release as one screen."""
    title = Text.assemble(
        (f"{shown.name} ", "bold"),
        f"{shown.service} {shown.from_version} → {shown.to_version}  policy {shown.policy}  ",
        (_phase(shown), PHASES.get(shown.phase, "yellow")),
        f"  {shown.stage}" if shown.phase == "progressing" else "",
    )
    ladder = Ladder([Text(_rung(step), LADDER[step.state][1]) for step in shown.steps])
    because = Text.assemble(("why      ", "dim"), shown.because or "-")
    if shown.onward:
        because = Text.assemble(because, ("\nnext     ", "dim"), shown.onward)
    if shown.drift:
        because = Text.assemble(because, ("\ndrift    ", "yellow"), "; ".join(shown.drift))
    if shown.purpose:
        because = Text.assemble(("order    ", "dim"), f"{shown.purpose}\n", because)
    back = Text.assemble(
        ("rollback ", "dim"), shown.return_point, ("\npoint of no return ", "dim"), shown.point_of_no_return
    )
    share = Listing(
        ("proxy", "asked", "acknowledged", "observed", "canary", "errors", "baseline", "errors"),
        [
            (p.proxy, f"{p.asked:.1%}", p.problem or ("yes" if p.acked else "not yet"),
             "-" if p.observed is None else f"{p.observed:.1%}",
             str(p.canary_requests), str(p.canary_errors), str(p.baseline_requests), str(p.baseline_errors))
            for p in shown.proxies
        ],
    )  # fmt: skip
    if shown.unconfirmed and shown.phase == "promoted":
        back = Text.assemble(back, ("\nretired  ", "dim"), f"not yet: {shown.unconfirmed}")
    if shown.ends:
        back = Text.assemble(("ends     ", "dim"), f"{shown.ends}\n", back)
    parts: list[RenderableType] = [
        title,
        ladder,
        because,
        back,
    ]
    if shown.proxies:
        parts += [Text(), share]
    if shown.verdicts:
        parts += [Text(), _verdicts(shown.verdicts)]
    if shown.results:
        parts += [Text(), _results(shown.results)]
    return Group(*parts)


def _approval(step: StepShown) -> str:
    if not step.approval:
        return ""
    return " (approval needed)" if step.approval == "needed" else f" (approved by {step.approval})"


def _verdicts(verdicts: Sequence[VerdictShown]) -> RenderableType:
    """Show what each condition says, and below what is to be known of several of them, once."""
    listing = Listing(
        ("condition", "segment", "verdict", "why"),
        [(v.metric, v.segment, v.outcome, v.reason) for v in verdicts],
    )
    notes = dict.fromkeys(v.note for v in verdicts if v.note)
    return Group(listing, *(Text.assemble(("note     ", "dim"), note) for note in notes))


def _results(results: Sequence[ResultShown]) -> Listing:
    return Listing(
        ("tested", "canary", "of", "baseline", "of", "difference", "surely",
         "better", "worse", "needed", "shown"),
        [
            (r.metric + " (observed)" * (not r.decides), f"{r.canary:.4g}", f"{r.canary_n:.0f}",
             f"{r.baseline:.4g}", f"{r.baseline_n:.0f}", "-" if r.change is None else f"{r.change:+.2%}",
             " to ".join("-" if bound is None else f"{bound:+.1%}" for bound in (r.low, r.high)),
             f"{r.better:.3g}", f"{r.worse:.3g}", f"{r.threshold:g}", r.said)
            for r in results
        ],
    )  # fmt: skip


def show_table(
    read: Callable[[], T],
    heads: Sequence[str],
    rows: Callable[[T], Sequence[Sequence[str]]],
    output: str,
) -> None:
    """Print what was read once, as a table or as JSON."""
    _show(read, lambda shown: Listing(heads, rows(shown)), output, watch=False)


def _age(seconds: float) -> str:
    """Return how long something lasts, to the second; '-' for less than one."""
    return format_duration(timedelta(seconds=int(seconds))) if seconds >= 1 else "-"


def _newest(versions: Iterable[str]) -> str:
    """Return the version with the highest revision, or '-'."""
    known = [(int(head), text) for text in versions if (head := text.partition(".")[0]).isdigit()]
    return max(known)[1] if known else "-"


def _join(words: Sequence[str], between: str = ", ") -> str:
    return between.join(words) or "-"


def _stable(shown: ServiceShown) -> str:
    had = f" WITH {shown.had}" if shown.had else ""
    return f"{shown.stable}? LEFT ALONE{had}" if shown.left_alone else shown.stable


def _why(shown: ReleaseShown) -> str:
    return "; ".join((*filter(None, [shown.because]), *(f"DRIFT: {text}" for text in shown.drift)))


def _rung(step: StepShown) -> str:
    skipped = " (skipped)" if step.state == "skipped" else ""
    return f"{LADDER[step.state][0]} {step.name} {step.share}{_approval(step)}{skipped}"


def _phase(shown: ReleaseShown) -> str:
    notes = ["emergency"] * shown.emergency + ["undone"] * bool(shown.undone) + [shown.halt or ""]
    notes += ["not confirmed"] * bool(shown.unconfirmed and shown.phase != "promoted")
    return " ".join([shown.phase, *(f"({note})" for note in notes if note)])


def _show(read: Callable[[], T], view: Callable[[T], RenderableType], output: str, watch: bool) -> None:
    as_json = check_output(output)
    try:
        if watch and not as_json and Console().is_terminal:
            with Live(view(read()), auto_refresh=False) as live:
                while True:
                    time.sleep(1)
                    live.update(view(read()), refresh=True)
        while True:
            shown = read()
            if as_json:
                console.json(TypeAdapter(type(shown)).dump_python(shown, mode="json"))
            else:
                show(view(shown))
            if not watch:
                return
            time.sleep(1)
    except KeyboardInterrupt:
        return
