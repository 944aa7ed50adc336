"""The routes of the HTTP API. JSON in, JSON out; errors are ``{"error": text}``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from controlplane.release.recording import RECORDING
from controlplane.web.port import (
    Act,
    Asked,
    CohortAsked,
    ControlPlane,
    Declare,
    Documents,
    Order,
    Push,
    RefusedError,
    Switch,
    Who,
)

MAX_BODY = 4 * 1024 * 1024
Body = TypeVar("Body", bound=BaseModel)


class Api:
    """The handlers over a control plane; `app` is the ASGI application."""

    def __init__(self, plane: ControlPlane, registry: CollectorRegistry) -> None:
        self._plane = plane
        self._registry = registry
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
            Route("/v1/services", self._services),
            Route("/v1/services/{name}/switch", self._switch, methods=["POST"]),
            Route("/v1/services/{name}/metrics/{metric}", self._push, methods=["POST"]),
            Route("/v1/undo/{name}", self._undo, methods=["POST"]),
            Route("/v1/releases", self._releases, methods=["GET"]),
            Route("/v1/releases", self._order, methods=["POST"]),
            Route("/v1/releases/{name}", self._release),
            Route("/v1/releases/{name}/recording", self._recording, methods=["GET"]),
            Route("/v1/releases/{name}/cohort", self._cohort, methods=["POST"]),
            Route("/v1/explain", self._explain, methods=["POST"]),
            Route("/v1/releases/{name}/{action}", self._act, methods=["POST"]),
            Route("/v1/blackouts", self._blackouts, methods=["GET"]),
            Route("/v1/blackouts", self._declare, methods=["POST"]),
            Route("/v1/blackouts/{id}/end", self._withdraw, methods=["POST"]),
            Route("/v1/proxies", self._proxies),
            Route("/v1/problems", self._problems),
            Route("/v1/records", self._records),
            Route("/v1/events", self._events),
            Route("/v1/documents", self._apply, methods=["POST"]),
        ]
        handlers = {RefusedError: _refused, HTTPException: _http_error}
        self.app = Starlette(routes=routes, exception_handlers=handlers)

    async def _livez(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        return (
            PlainTextResponse("ok\n")
            if self._plane.ready
            else PlainTextResponse("state is not loaded yet\n", 503)
        )

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _services(self, _: Request) -> Response:
        return _listed(self._plane.services())

    async def _releases(self, _: Request) -> Response:
        return _listed(self._plane.releases())

    async def _release(self, request: Request) -> Response:
        return _one(self._plane.release(request.path_params["name"]))

    async def _recording(self, request: Request) -> Response:
        after, limit = _number(request, "after", 0, 0, 2**62), _number(request, "limit", 500, 1, 1000)
        recording = await self._plane.recording(request.path_params["name"], after, limit)
        return Response(RECORDING.dump_json(recording, by_alias=True), media_type="application/json")

    async def _proxies(self, _: Request) -> Response:
        return _listed(self._plane.proxies())

    async def _problems(self, _: Request) -> Response:
        return JSONResponse(list(self._plane.problems()))

    async def _records(self, request: Request) -> Response:
        release, limit = request.query_params.get("release"), _number(request, "limit", 100, 1, 10_000)
        after = _number(request, "after", 0, 0, 2**62) if "after" in request.query_params else None
        return _listed(await self._plane.records(release, limit, after))

    async def _events(self, request: Request) -> Response:
        """Send records as they are written: those after the one that the client saw last, or new ones."""
        release = request.query_params.get("release")
        seen = request.headers.get("last-event-id", "")
        after = int(seen) if seen.isascii() and seen.isdigit() else None
        if after is None:
            after = _number(request, "after", 0, 0, 2**62) if "after" in request.query_params else None
        if release is not None:
            self._plane.release(release)  # refuses a name that nobody knows, while it still can
        records = self._plane.follow(release, after)
        return EventSourceResponse(
            ServerSentEvent(each.model_dump_json(), id=str(each.number), event=each.kind)
            async for each in records
        )

    async def _explain(self, request: Request) -> Response:
        return _one(self._plane.explain(await _body(request, Asked)))

    async def _cohort(self, request: Request) -> Response:
        asked = await _body(request, CohortAsked)
        return _one(self._plane.cohort(request.path_params["name"], asked))

    async def _order(self, request: Request) -> Response:
        return _one(await self._plane.order(await _body(request, Order)), 201)

    async def _act(self, request: Request) -> Response:
        name, action = request.path_params["name"], request.path_params["action"]
        return _one(await self._plane.act(name, action, await _body(request, Act)))

    async def _push(self, request: Request) -> Response:
        service, metric = request.path_params["name"], request.path_params["metric"]
        return _one(self._plane.push(service, metric, await _body(request, Push)), 202)

    async def _switch(self, request: Request) -> Response:
        return _one(await self._plane.switch(request.path_params["name"], await _body(request, Switch)))

    async def _undo(self, request: Request) -> Response:
        return _one(await self._plane.undo(request.path_params["name"], await _body(request, Act)))

    async def _blackouts(self, _: Request) -> Response:
        return _listed(self._plane.blackouts())

    async def _declare(self, request: Request) -> Response:
        return _listed(await self._plane.declare(await _body(request, Declare)), 201)

    async def _withdraw(self, request: Request) -> Response:
        return _listed(await self._plane.withdraw(request.path_params["id"], await _body(request, Who)))

    async def _apply(self, request: Request) -> Response:
        applied = await self._plane.apply(await _body(request, Documents))
        return _one(applied, 422 if applied.problems and not applied.accepted else 200)


async def _body(request: Request, model: type[Body]) -> Body:
    # A form or text/plain post can come from any page that an operator's browser shows; JSON cannot.
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RefusedError(415, "the body must be application/json")
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > MAX_BODY:
            raise RefusedError(413, f"the body is larger than {MAX_BODY} bytes")
    try:
        return model.model_validate_json(bytes(received))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise RefusedError(400, wrong) from error


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise RefusedError(400, f"{name}: {text!r} is not a number from {least} to {most}")
    return int(text)


def _one(shown: BaseModel, status: int = 200) -> Response:
    return Response(shown.model_dump_json(), status, media_type="application/json")


def _listed(shown: Sequence[BaseModel], status: int = 200) -> Response:
    body = "[" + ",".join(item.model_dump_json() for item in shown) + "]"
    return Response(body, status, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": str(error)}, error.status)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
