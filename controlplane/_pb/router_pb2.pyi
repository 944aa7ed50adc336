from controlplane._pb import accesslog_pb2 as _accesslog_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Router(_message.Message):
    __slots__ = ("upstream_log",)
    UPSTREAM_LOG_FIELD_NUMBER: _ClassVar[int]
    upstream_log: _containers.RepeatedCompositeFieldContainer[_accesslog_pb2.AccessLog]
    def __init__(self, upstream_log: _Optional[_Iterable[_Union[_accesslog_pb2.AccessLog, _Mapping]]] = ...) -> None: ...
