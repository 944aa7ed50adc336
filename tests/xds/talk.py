"""A stream that is spoken to in short; no test."""

from __future__ import annotations

from controlplane._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from controlplane.xds.delta import DeltaStream
from controlplane.xds.sotw import SotwStream
from controlplane.xds.view import Peer


class Talk:
    """One stream, spoken to in short: names in, names out."""

    def __init__(self, model, variant, **options):
        self.model, self.variant = model, variant
        self.request = DiscoveryRequest if variant == "sotw" else DeltaDiscoveryRequest
        self.response = DiscoveryResponse if variant == "sotw" else DeltaDiscoveryResponse
        self.stream = (SotwStream if variant == "sotw" else DeltaStream)(Peer("test"), model.NOW, **options)
        self.node = model.NODE
        self.last = {}

    def ask(self, url, names=(), *, nonce="", error="", **fields):
        """``names`` are the list of a state-of-the-world client, or what a delta client subscribes to."""
        key = "resource_names" if self.variant == "sotw" else "resource_names_subscribe"
        message = self.request(type_url=url, node=self.node, response_nonce=nonce, **{key: names}, **fields)
        if error:
            message.error_detail.message = error.encode()
        self.node = b""
        self.stream.receive(message.SerializeToString(), self.model.NOW)
        return self.heard()

    def ack(self, url, names=(), **fields):
        return self.ask(url, names, nonce=self.last[url].nonce, **fields)

    def repeated(self, *names):
        """What a state-of-the-world client repeats in each request, and a delta client does not."""
        return list(names) if self.variant == "sotw" else ()

    def publish(self, revision, *groups):
        data = self.stream.push(self.model.snapshot(revision, *groups), self.model.NOW)
        return ([] if data is None else [self.hear(data)]) + self.heard()

    def heard(self):
        """All responses that may go now: names sent, with ``-`` before those removed."""
        found = []
        while (data := self.stream.next_response(self.model.NOW)) is not None:
            found.append(self.hear(data))
        return found

    def hear(self, data):
        message = self.response.FromString(data)
        self.last[message.type_url] = message
        names = [
            r.name if self.variant == "delta" else r.value.split(b"=")[0].decode() for r in message.resources
        ]
        return sorted(names) + [f"-{n}" for n in getattr(message, "removed_resources", [])]

    def view(self, url):
        return self.stream.view().of(url)
