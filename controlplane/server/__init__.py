"""The gRPC side: xDS streams and the stats intake. To embed a server: `Cache`, `serve`, `Callbacks`."""

from controlplane.server.cache import Cache
from controlplane.server.embedded import Served, serve
from controlplane.server.streams import Callbacks

__all__ = ["Cache", "Callbacks", "Served", "serve"]
