"""The gRPC side: xDS streams and the stats intake; what is named here is for programs that embed a server."""

from controlplane.server.cache import Cache
from controlplane.server.callbacks import Callbacks
from controlplane.server.embedded import Served, serve
from controlplane.server.garbage import collect_seldom
from controlplane.server.limits import Limits
from controlplane.server.options import BindError
from controlplane.server.tls import TlsError, TlsFiles, refuse_stranger
from controlplane.server.written import from_yaml

__all__ = [
    "BindError",
    "Cache",
    "Callbacks",
    "Limits",
    "Served",
    "TlsError",
    "TlsFiles",
    "collect_seldom",
    "from_yaml",
    "refuse_stranger",
    "serve",
]
