from controlplane._pb import core_pb2 as _core_pb2
from controlplane._pb import matcher_pb2 as _matcher_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HeaderMutation(_message.Message):
    __slots__ = ("remove", "append", "remove_on_match")
    class RemoveOnMatch(_message.Message):
        __slots__ = ("key_matcher",)
        KEY_MATCHER_FIELD_NUMBER: _ClassVar[int]
        key_matcher: _matcher_pb2.StringMatcher
        def __init__(self, key_matcher: _Optional[_Union[_matcher_pb2.StringMatcher, _Mapping]] = ...) -> None: ...
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    REMOVE_ON_MATCH_FIELD_NUMBER: _ClassVar[int]
    remove: str
    append: _core_pb2.HeaderValueOption
    remove_on_match: HeaderMutation.RemoveOnMatch
    def __init__(self, remove: _Optional[str] = ..., append: _Optional[_Union[_core_pb2.HeaderValueOption, _Mapping]] = ..., remove_on_match: _Optional[_Union[HeaderMutation.RemoveOnMatch, _Mapping]] = ...) -> None: ...
