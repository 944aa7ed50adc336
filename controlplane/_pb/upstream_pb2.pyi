from controlplane._pb import core_pb2 as _core_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HttpProtocolOptions(_message.Message):
    __slots__ = ("explicit_http_config",)
    class ExplicitHttpConfig(_message.Message):
        __slots__ = ("http2_protocol_options",)
        HTTP2_PROTOCOL_OPTIONS_FIELD_NUMBER: _ClassVar[int]
        http2_protocol_options: _core_pb2.Http2ProtocolOptions
        def __init__(self, http2_protocol_options: _Optional[_Union[_core_pb2.Http2ProtocolOptions, _Mapping]] = ...) -> None: ...
    EXPLICIT_HTTP_CONFIG_FIELD_NUMBER: _ClassVar[int]
    explicit_http_config: HttpProtocolOptions.ExplicitHttpConfig
    def __init__(self, explicit_http_config: _Optional[_Union[HttpProtocolOptions.ExplicitHttpConfig, _Mapping]] = ...) -> None: ...
