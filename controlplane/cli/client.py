"""How commands talk: to a running server over HTTP, and to the operator in the terminal."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import BaseModel, TypeAdapter

if TYPE_CHECKING:
    import httpx

DEFAULT_SERVER = "http://127.0.0.1:18080"
T = TypeVar("T")

Server = Annotated[
    str, typer.Option("--server", envvar="TURNOUT_SERVER", help="Address of the running server's API.")
]
Output = Annotated[str, typer.Option("--output", "-o", help="text or json.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show again every second until interrupted.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it goes into the record.")]
Actor = Annotated[
    str, typer.Option("--actor", envvar="TURNOUT_ACTOR", help="Who; by default the login name.")
]


class CommandError(Exception):
    """An expected failure of a command."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class _Console:
    """Standard output for results, standard error for the rest."""

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def error(self, text: str) -> None:
        print(f"turnout: {text}", file=sys.stderr, flush=True)

    def json(self, value: object) -> None:
        print(json.dumps(value, indent=2), flush=True)


console = _Console()


def clock(times: Iterable[datetime]) -> str:
    """Return the format of times beside each other: with the date unless all are of one day."""
    return "%H:%M:%S" if len({at.date() for at in times}) < 2 else "%Y-%m-%d %H:%M:%S"


def me() -> str:
    """Return the login name, or 'unknown' where there is none (a container without users)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def get(server: str, path: str, shape: type[T], params: Mapping[str, str | int] | None = None) -> T:
    """Read from the API.

    Raises:
        CommandError: If the server is not there or refuses.
    """
    return TypeAdapter(shape).validate_json(_request(server, "GET", path, None, params))


def post(server: str, path: str, body: BaseModel, shape: type[T]) -> T:
    """Send to the API and return its answer.

    Raises:
        CommandError: If the server is not there or refuses.
    """
    return TypeAdapter(shape).validate_json(_request(server, "POST", path, body.model_dump_json(), None))


def stream(server: str, path: str, params: Mapping[str, str]) -> Iterator[str]:
    """Yield what the API sends as events, until it ends or the operator interrupts.

    Raises:
        CommandError: If the server is not there, refuses, or goes away.
    """
    import httpx

    try:
        url = server.rstrip("/") + path
        with httpx.stream("GET", url, params=params, headers=_token(), timeout=None) as response:  # noqa: S113
            if response.status_code != 200:
                response.read()
                raise CommandError(_said(response))
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield line.removeprefix("data:").strip()
        raise CommandError(f"the server at {server} stopped")
    except httpx.HTTPError as error:
        raise CommandError(f"the server at {server} went away: {error or type(error).__name__}") from None


def _request(
    server: str, method: str, path: str, body: str | None, params: Mapping[str, str | int] | None
) -> bytes:
    import httpx

    url = server.rstrip("/") + path
    headers = {"content-type": "application/json", **_token()}
    try:
        response = httpx.request(method, url, content=body, params=params, timeout=10, headers=headers)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise CommandError(f"--server: {server!r} is not an address; write 'http://host:port'") from None
    except httpx.HTTPError as error:
        why = error or type(error).__name__
        raise CommandError(
            f"no server answers at {server} ({why}); start `turnout serve` or set --server"
        ) from None
    # 422 has an answer in its body: documents that were all refused.
    if response.is_success or (response.status_code == 422 and b'"problems"' in response.content):
        return response.content
    raise CommandError(_said(response))


def _token() -> dict[str, str]:
    # Never an option: what is on a command line is there for everyone on the machine to see.
    token = os.environ.get("TURNOUT_TOKEN", "").strip()
    return {"authorization": f"Bearer {token}"} if token else {}


def _said(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered {response.status_code}"


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """Return the value of an option.

    Raises:
        CommandError: If it has none; the option is named.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise CommandError(f"{option}: {error}", 2) from None


def check_output(output: str) -> bool:
    """Return True for json, False for text.

    Raises:
        CommandError: For anything else.
    """
    if output not in {"text", "json"}:
        raise CommandError(f"--output: {output!r} is not known; known: text, json", 2)
    return output == "json"
