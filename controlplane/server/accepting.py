"""The gRPC server of grpc.aio, kept from what would end it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc
from grpc.aio import _server as aio

from controlplane.server.options import SERVER_OPTIONS
from controlplane.server.waking import together

_LONG = 3600.0  # seconds
Services = Mapping[str, Mapping[str, grpc.RpcMethodHandler]]  # methods by name, by service


def make(services: Services) -> grpc.aio.Server:
    """Return a server of these services, to be bound and started."""
    return _Server(services)


async def ended(server: grpc.aio.Server) -> None:
    """Wait until a server that was started has ended, which it should not by itself.

    Raises:
        Exception: What ended it, if gRPC knows.
    """
    # Without a timeout, whoever cancelled this would take away what ``stop`` waits for.
    while await server.wait_for_termination(_LONG):
        pass


class _Server(aio.Server):  # type: ignore[misc] # grpc has no types
    """A server of known methods, whose calls are told apart in C."""

    def __init__(self, services: Services) -> None:
        self._loop = asyncio.get_running_loop()
        with together(self._loop):
            self._server = _Accepting(self._loop, None, (), None, SERVER_OPTIONS, None)
        for service, methods in services.items():
            self.add_registered_method_handlers(service, dict(methods))


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """Answers calls of other methods by itself: UNIMPLEMENTED, whatever their name is.

    gRPC's own loop, since 1.84, decodes the name of a method that is not registered. One request for a path
    that is not UTF-8 ends that loop, and then gRPC shuts the whole server down, for all proxies.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._answers: set[asyncio.Task[None]] = set()  # the loop alone would not keep them

    async def _request_call(self) -> None:
        call = await super()._request_call()
        loop = asyncio.get_running_loop()
        answer = cygrpc._handle_rpc("", _NOBODY, (), call, loop, False)
        task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, ""))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        # To gRPC's loop this is a call that did not come about: it waits for the next one.
        raise cygrpc._RequestCallError


_NOBODY = cygrpc._MethodResolver([], {})
