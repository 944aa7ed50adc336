"""One POST to another system, with what came of it as a value."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import httpx

from controlplane.policy.values import is_url
from controlplane.release.hooks import Answered
from controlplane.release.ports import Json

CLOUD_EVENT = "application/cloudevents+json"


def poster_client() -> httpx.AsyncClient:
    """Return a client to post with, which goes where it was sent and nowhere else."""
    return httpx.AsyncClient(verify=_trusted(), follow_redirects=False)


@cache
def _trusted() -> ssl.SSLContext:
    # To read the certificates of all authorities holds up everything else for 20 ms and more.
    return httpx.create_ssl_context()


@dataclass(frozen=True, slots=True)
class Poster:
    """Posts JSON; ``environment`` has the addresses that documents write as ``$NAME``."""

    client: httpx.AsyncClient
    environment: Mapping[str, str]

    async def post(self, url: str, body: Json, key: str, within: float) -> Answered:
        """Send once, wait for ``within`` seconds, and return the status, or why there is none."""
        if url.startswith("$"):
            name, url = url[1:], self.environment.get(url[1:], "")
            if not url:
                return Answered(None, f"the server's environment has no {name}")
        if not is_url(url):
            return Answered(None, "is not an address")
        headers = {"idempotency-key": key}
        if "specversion" in body:
            headers["content-type"] = CLOUD_EVENT
        try:
            async with asyncio.timeout(within):  # httpx alone measures each wait for bytes, not their sum
                answer = await self.client.post(url, json=body, headers=headers, timeout=within)
        except TimeoutError:
            return Answered(None, f"no answer within {within:g}s")
        except httpx.HTTPError as error:
            return Answered(None, str(error) or type(error).__name__)
        except (httpx.InvalidURL, ValueError):
            return Answered(None, "is not an address")
        # What the other side says is not kept: it may be long, and its words are a stranger's.
        return Answered(answer.status_code)
