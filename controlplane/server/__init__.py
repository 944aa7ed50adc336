"""The gRPC side: xDS streams and the stats intake; to embed: `Cache`, `from_yaml`, `serve`, `Callbacks`."""

from controlplane.server.cache import Cache
from controlplane.server.embedded import Served, serve
from controlplane.server.streams import Callbacks
from controlplane.server.written import from_yaml

__all__ = ["Cache", "Callbacks", "Served", "from_yaml", "serve"]
