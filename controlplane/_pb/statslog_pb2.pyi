from controlplane._pb import type_pb2 as _type_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Config(_message.Message):
    __slots__ = ("histograms", "counters", "stats_scope")
    class Tag(_message.Message):
        __slots__ = ("name", "value_format")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FORMAT_FIELD_NUMBER: _ClassVar[int]
        name: str
        value_format: str
        def __init__(self, name: _Optional[str] = ..., value_format: _Optional[str] = ...) -> None: ...
    class Stat(_message.Message):
        __slots__ = ("name", "tags")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TAGS_FIELD_NUMBER: _ClassVar[int]
        name: str
        tags: _containers.RepeatedCompositeFieldContainer[Config.Tag]
        def __init__(self, name: _Optional[str] = ..., tags: _Optional[_Iterable[_Union[Config.Tag, _Mapping]]] = ...) -> None: ...
    class Counter(_message.Message):
        __slots__ = ("stat", "value_format", "value_fixed")
        STAT_FIELD_NUMBER: _ClassVar[int]
        VALUE_FORMAT_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIXED_FIELD_NUMBER: _ClassVar[int]
        stat: Config.Stat
        value_format: str
        value_fixed: _wrappers_pb2.UInt64Value
        def __init__(self, stat: _Optional[_Union[Config.Stat, _Mapping]] = ..., value_format: _Optional[str] = ..., value_fixed: _Optional[_Union[_wrappers_pb2.UInt64Value, _Mapping]] = ...) -> None: ...
    class Histogram(_message.Message):
        __slots__ = ("stat", "unit", "value_format")
        class Unit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            Unspecified: _ClassVar[Config.Histogram.Unit]
            Bytes: _ClassVar[Config.Histogram.Unit]
            Microseconds: _ClassVar[Config.Histogram.Unit]
            Milliseconds: _ClassVar[Config.Histogram.Unit]
        Unspecified: Config.Histogram.Unit
        Bytes: Config.Histogram.Unit
        Microseconds: Config.Histogram.Unit
        Milliseconds: Config.Histogram.Unit
        STAT_FIELD_NUMBER: _ClassVar[int]
        UNIT_FIELD_NUMBER: _ClassVar[int]
        VALUE_FORMAT_FIELD_NUMBER: _ClassVar[int]
        stat: Config.Stat
        unit: Config.Histogram.Unit
        value_format: str
        def __init__(self, stat: _Optional[_Union[Config.Stat, _Mapping]] = ..., unit: _Optional[_Union[Config.Histogram.Unit, str]] = ..., value_format: _Optional[str] = ...) -> None: ...
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    STATS_SCOPE_FIELD_NUMBER: _ClassVar[int]
    histograms: _containers.RepeatedCompositeFieldContainer[Config.Histogram]
    counters: _containers.RepeatedCompositeFieldContainer[Config.Counter]
    stats_scope: _type_pb2.Scope
    def __init__(self, histograms: _Optional[_Iterable[_Union[Config.Histogram, _Mapping]]] = ..., counters: _Optional[_Iterable[_Union[Config.Counter, _Mapping]]] = ..., stats_scope: _Optional[_Union[_type_pb2.Scope, _Mapping]] = ...) -> None: ...
