"""The routes of the HTTP API. JSON in, JSON out; errors are ``{"error": text}``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from controlplane.policy.explanation import told
from controlplane.release.recording import RECORDING
from controlplane.web.access import Access, permit
from controlplane.web.asked import (
    Act,
    Adopt,
    Asked,
    CohortAsked,
    Declare,
    Documents,
    Order,
    Push,
    Resend,
    Switch,
    Who,
)
from controlplane.web.port import ControlPlane, RefusedError

MAX_BODY = 4 * 1024 * 1024
_AT_ONCE = 100  # proxies: a few milliseconds
Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """The handlers over a control plane; `app` is the ASGI application."""

    def __init__(
        self, plane: ControlPlane, registry: CollectorRegistry, access: Access | None = None
    ) -> None:
        self._plane = plane
        self._registry = registry
        self._access = access or Access()
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            self._get("/metrics", self._metrics),
            self._get("/v1/services", self._services),
            self._post("/v1/services/{name}/switch", self._switch),
            self._post("/v1/services/{name}/metrics/{metric}", self._push),
            self._post("/v1/undo/{name}", self._undo),
            self._post("/v1/adopt", self._adopt),
            self._get("/v1/releases", self._releases),
            self._post("/v1/releases", self._order),
            self._get("/v1/releases/{name}", self._release),
            self._get("/v1/releases/{name}/recording", self._recording),
            self._post("/v1/releases/{name}/cohort", self._cohort),
            self._post("/v1/explain", self._explain),
            self._post("/v1/releases/{name}/{action}", self._act),
            self._get("/v1/blackouts", self._blackouts),
            self._post("/v1/blackouts", self._declare),
            self._post("/v1/blackouts/{id}/end", self._withdraw),
            self._get("/v1/proxies", self._proxies),
            self._post("/v1/proxies/resend", self._resend),
            self._get("/v1/problems", self._problems),
            self._get("/v1/records", self._records),
            self._get("/v1/events", self._events),
            self._get("/v1/documents", self._documents),
            self._post("/v1/documents", self._apply),
        ]
        handlers = {RefusedError: _refused, HTTPException: _http_error}
        self.app = Starlette(routes=routes, exception_handlers=handlers)

    def _get(self, path: str, handler: Handler) -> Route:
        return Route(path, self._known(handler), methods=["GET"])

    def _post(self, path: str, handler: Handler) -> Route:
        return Route(path, self._known(handler), methods=["POST"])

    def _known(self, handler: Handler) -> Handler:
        """Let in only whom the operators' file knows; what they may do is asked where it is read."""

        async def answer(request: Request) -> Response:
            request.state.operator = self._access.admit(request)
            return await handler(request)

        return answer

    async def _wanted(self, request: Request, model: type[Body], action: str, name: str = "") -> Body:
        """Return what an operator wants to change, if they may; it is written down under their name."""
        wanted, operator = await _body(request, model), request.state.operator
        if operator is None:
            return wanted
        need = self._plane.need(action, name, wanted)
        permit(operator, need)
        known = {"actor": operator.name, "step": need.step} if need.step else {"actor": operator.name}
        return wanted.model_copy(update={k: v for k, v in known.items() if k in model.model_fields})

    async def _livez(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        if not self._plane.ready:
            return PlainTextResponse("state is not loaded yet\n", 503)
        await self._plane.look()
        # Still ready: proxies must come in, for they are who can tell.
        alone = self._plane.left_alone
        note = f"; services left alone: {alone}, see /v1/problems" if alone else ""
        return PlainTextResponse(f"ok{note}\n")

    async def _metrics(self, _: Request) -> Response:
        await self._plane.look()
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _services(self, _: Request) -> Response:
        await self._plane.look()
        return _listed(self._plane.services())

    async def _releases(self, _: Request) -> Response:
        return _listed(await self._plane.releases())

    async def _release(self, request: Request) -> Response:
        return _one(self._plane.release(request.path_params["name"]))

    async def _recording(self, request: Request) -> Response:
        after, limit = _number(request, "after", 0, 0, 2**62), _number(request, "limit", 500, 1, 1000)
        recording = await self._plane.recording(request.path_params["name"], after, limit)
        return Response(RECORDING.dump_json(recording, by_alias=True), media_type="application/json")

    async def _proxies(self, _: Request) -> Response:
        return _joined([part async for part in _parts(await self._plane.proxies())])

    async def _problems(self, _: Request) -> Response:
        await self._plane.look()
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
        return _one(await self._plane.order(await self._wanted(request, Order, "order")), 201)

    async def _act(self, request: Request) -> Response:
        name, action = request.path_params["name"], request.path_params["action"]
        wanted = await self._wanted(request, Act, action, name)
        return _one(await self._plane.act(name, action, wanted))

    async def _push(self, request: Request) -> Response:
        service, metric = request.path_params["name"], request.path_params["metric"]
        wanted = await self._wanted(request, Push, "push", service)
        return _one(self._plane.push(service, metric, wanted), 202)

    async def _switch(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _one(await self._plane.switch(name, await self._wanted(request, Switch, "switch", name)))

    async def _adopt(self, request: Request) -> Response:
        return _listed(await self._plane.adopt(await self._wanted(request, Adopt, "adopt")))

    async def _undo(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _one(await self._plane.undo(name, await self._wanted(request, Act, "undo", name)))

    async def _blackouts(self, _: Request) -> Response:
        return _listed(self._plane.blackouts())

    async def _declare(self, request: Request) -> Response:
        return _listed(await self._plane.declare(await self._wanted(request, Declare, "blackout")), 201)

    async def _withdraw(self, request: Request) -> Response:
        wanted = await self._wanted(request, Who, "blackout")
        return _listed(await self._plane.withdraw(request.path_params["id"], wanted))

    async def _resend(self, request: Request) -> Response:
        await self._plane.resend(await self._wanted(request, Resend, "resend"))
        return await self._proxies(request)

    async def _documents(self, _: Request) -> Response:
        return _one(self._plane.documents())

    async def _apply(self, request: Request) -> Response:
        applied = await self._plane.apply(await self._wanted(request, Documents, "apply"))
        nothing = applied.problems and not (applied.accepted or applied.removed)
        return _one(applied, 422 if nothing else 200)


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
        raise RefusedError(400, _told(model, bytes(received), error)) from error


def _told(model: type[BaseModel], body: bytes, error: ValidationError) -> str:
    try:
        return told(model, from_json(body), error, "the body")
    except ValueError as broken:
        return f"the body is not JSON: {broken}"


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
        raise RefusedError(400, f"{name}: {text!r} is not a number from {least} to {most}")
    return int(text)


def _one(shown: BaseModel, status: int = 200) -> Response:
    return Response(shown.model_dump_json(), status, media_type="application/json")


def _listed(shown: Sequence[BaseModel], status: int = 200) -> Response:
    return _joined([item.model_dump_json() for item in shown], status)


def _joined(items: Sequence[str], status: int = 200) -> Response:
    return Response("[" + ",".join(items) + "]", status, media_type="application/json")


async def _parts(shown: Sequence[BaseModel]) -> AsyncIterator[str]:
    """Yield each as JSON; between some of them everybody else has a turn."""
    for number, item in enumerate(shown):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item.model_dump_json()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    asks = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse({"error": str(error)}, error.status, asks)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
