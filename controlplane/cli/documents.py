"""Commands around documents and proxies' configuration: validate, schema, apply, bootstrap."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
import yaml

from controlplane.cli.client import DEFAULT_SERVER, Actor, CommandError, Server, console, me, parsed, post
from controlplane.policy.problems import Problem
from controlplane.policy.yaml_source import MAX_BYTES
from controlplane.web.asked import Documents as Body
from controlplane.web.shown import Applied

Paths = Annotated[
    list[Path], typer.Argument(help="Files, or folders whose YAML files are meant; - is standard input.")
]
STDIN = "-"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (validate, schema, apply, bootstrap):
        app.command()(command)


def validate(paths: Paths) -> None:
    """Check documents without a server: every mistake at once, as file:line:column."""
    from controlplane.policy.loading import load

    files = read_files(paths)
    if not files:
        raise CommandError(f"no YAML file in {', '.join(map(str, paths))}")
    loaded = load(files)
    for problem in loaded.problems:
        console.line(str(problem))
    if loaded.errors:
        raise CommandError(_mistakes(len(loaded.errors)))
    counts = Counter(kind for kind, _ in loaded.catalog.entries)
    console.line(
        f"ok: {', '.join(f'{kind} {count}' for kind, count in sorted(counts.items())) or 'no documents'}"
    )


def schema() -> None:
    """Print the JSON Schema of all documents, for editors."""
    from controlplane.policy.schema import schema as build

    console.json(build())


def apply(
    files: Annotated[list[Path], typer.Option("--file", "-f", help="Files or folders; - is standard input.")],
    generation: Annotated[
        int | None,
        typer.Option(min=0, help="Take nothing if what is in force is of another generation by now."),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what none of the files has.")] = False,
    actor: Actor = "",
    server: Server = DEFAULT_SERVER,
) -> None:
    """Give documents to a running server; what they do not mention stays in force, but with --prune."""
    texts = {}
    for name, content in read_files(files).items():
        if isinstance(content, Problem):
            raise CommandError(str(content))
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError as error:
            raise CommandError(f"{name}: is not UTF-8: {error.reason} at byte {error.start}") from None
    if not texts:
        raise CommandError("no YAML file there")
    body = Body(files=texts, actor=actor or me(), generation=generation, prune=prune)
    applied = post(server, "/v1/documents", body, Applied)
    for problem in (*applied.warnings, *applied.problems):
        console.line(problem)
    for document in applied.accepted:
        console.line(f"accepted {document}")
    for document in applied.removed:
        console.line(f"removed {document}")
    if applied.problems:
        raise CommandError(f"{_mistakes(len(applied.problems))}; the last good documents stay in force")
    changed = "" if applied.accepted or applied.removed else "nothing changed, "
    console.line(f"{changed}generation {applied.generation}")


def bootstrap(
    node: Annotated[str, typer.Option(help="Id of the proxy, unique.")],
    cluster: Annotated[str, typer.Option(help="Node cluster: what a Fleet's `nodes` matches.")],
    control_plane: Annotated[
        list[str], typer.Option("--control-plane", help="host:port of the xDS port; again for a second one.")
    ] = ["127.0.0.1:18000"],  # noqa: B006 - typer copies it
    flush: Annotated[
        str, typer.Option(help="How often statistics are pushed; as `serve --interval`.")
    ] = "5s",
    admin: Annotated[
        str, typer.Option(help="Address of Envoy's admin page; `off` for none.")
    ] = "127.0.0.1:9901",
    sotw: Annotated[bool, typer.Option("--sotw", help="State-of-the-world instead of delta.")] = False,
    tls: Annotated[
        tuple[str, str, str, str] | None,
        typer.Option(
            help="Certificate, key, CA (files on the proxy), and the DNS name of the control plane."
        ),
    ] = None,
    adopt: Annotated[
        list[str], typer.Option(metavar="NAME=IP:PORT", help="A listener of your own that takes our routes.")
    ] = [],  # noqa: B006 - typer copies it
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="IP:PORT=HOST:PORT",
            help="A listener that needs no control plane, and where it leads.",
        ),
    ] = None,
) -> None:
    """Print the bootstrap of one proxy."""
    from controlplane.policy.values import parse_address, parse_duration, parse_ip_address
    from controlplane.resources.bootstrap import Tls
    from controlplane.resources.bootstrap import bootstrap as build

    try:
        for address in control_plane:
            parse_address(address)
        if admin != "off" and not admin.endswith(":0"):  # a free port, which Envoy chooses
            parse_address(admin)
        listener = _pair(fallback, "--fallback") if fallback else None
        built = build(
            node,
            cluster,
            control_plane,
            variant="sotw" if sotw else "delta",
            flush=parsed("--flush", parse_duration, flush),
            admin=None if admin == "off" else admin,
            tls=Tls(*tls) if tls else None,
            adopt={name: parse_ip_address(at) for name, at in (_pair(each, "--adopt") for each in adopt)},
            fallback=(parse_ip_address(listener[0]), parse_address(listener[1])) if listener else None,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    console.line(yaml.safe_dump(built, sort_keys=False, width=110).rstrip())


def _pair(text: str, option: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not left or not equals or not right:
        raise ValueError(f"{option}: {text!r} has two parts, with = between them")
    return left, right


def _mistakes(count: int) -> str:
    return f"{count} mistake{'s' if count > 1 else ''}"


def _with_lists(path: Path, content: bytes) -> dict[str, bytes | Problem]:
    """Return a file with the lists of users that it seems to name; whether it does is not decided here."""
    from controlplane.app.folder import read_file

    named = re.findall(rb"users_file[\"']?\s*:\s*[\"']?([A-Za-z0-9._/-]+[.]txt)", content)
    found: dict[str, bytes | Problem] = {str(path): content}
    lists = {path.parent / name.decode() for name in named}
    return found | {str(each): read_file(each) for each in lists if each.is_file()}


def read_files(paths: list[Path]) -> dict[str, bytes | Problem]:
    """Return what files, and the YAML files of folders, hold; `-` is the standard input.

    Raises:
        CommandError: If one cannot be read.
    """
    from controlplane.app.folder import FolderError, read_file, read_folder

    found: dict[str, bytes | Problem] = {}
    for path in paths:
        if str(path) == STDIN:
            found[STDIN] = sys.stdin.buffer.read(MAX_BYTES + 1)
            continue
        try:
            found |= read_folder(path) if path.is_dir() else _with_lists(path, read_file(path))
        except FolderError as error:
            raise CommandError(str(error)) from None
    return found
