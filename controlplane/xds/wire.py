"""What goes out: responses joined from resources that were encoded once, around a tiny nonce field.

A message's encoding is the concatenation of its fields, in any order, so a response is its resources' bytes
(shared by all streams) followed by the few bytes that belong to one stream. Field numbers:
envoy/service/discovery/v3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from controlplane.xds.memory import IdentityCache, on_release
from controlplane.xds.snapshot import Resource, content_hash

_Encoded = tuple[str, bytes]  # version of the whole, bytes
_Bodies = dict[str, bytes]  # joined resources, by type

_sets: IdentityCache[tuple[str, _Bodies]] = IdentityCache(64)
_large: deque[_Bodies] = deque()  # of the sets that are joined large, the newest
_LARGE = 2
_LARGEST = 16 << 20  # bytes
_recent: dict[tuple[object, ...], tuple[tuple[Resource, ...], _Encoded]] = {}
_RECENT = 64  # responses
_SHARED = 256 << 10  # bytes; of a larger one only its resources are shared, not the whole
on_release(_recent.clear)
on_release(_large.clear)


def _shared(
    key: tuple[object, ...], resources: tuple[Resource, ...], make: Callable[[], _Encoded]
) -> _Encoded:
    """Return what ``make`` returned for these very resources and an equal key, if that is not long ago.

    Streams that had the same history have the same nonces, so that one change is the same bytes to all.
    """
    key = (*key, *map(id, resources))
    entry = _recent.get(key)
    return entry[1] if entry is not None else _keep(key, resources, make())


def _keep(key: tuple[object, ...], resources: tuple[Resource, ...], encoded: _Encoded) -> _Encoded:
    if len(encoded[1]) <= _SHARED:
        if len(_recent) >= _RECENT:
            del _recent[next(iter(_recent))]
        _recent[key] = resources, encoded
    return encoded


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


@lru_cache(maxsize=256)
def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


@lru_cache(maxsize=16)
def _control_plane(number: int, identifier: str) -> bytes:
    return _field(number, _field(1, identifier.encode()))


def _sotw_entry(type_url: str, resource: Resource) -> bytes:
    key = "sotw " + type_url
    entry = resource.wire.get(key)
    if entry is None:
        entry = resource.wire[key] = _field(2, _text(1, type_url) + _field(2, resource.body))
    return entry


def _delta_entry(type_url: str, resource: Resource) -> bytes:
    key = "delta " + type_url
    entry = resource.wire.get(key)
    if entry is None:
        packed = _field(2, _text(1, type_url) + _field(2, resource.body))
        head = _field(1, str(resource.version).encode()) + packed
        entry = resource.wire[key] = _field(2, head + _field(3, resource.name.encode()))
    return entry


def set_hash(resources: Mapping[str, Resource]) -> str:
    """Return the content hash of a set of resources: names and their hashes, sorted; remembered per set."""
    return _remembered(tuple(resources[name] for name in sorted(resources)))[0]


def _remembered(resources: tuple[Resource, ...]) -> tuple[str, dict[str, bytes]]:
    def hashed() -> tuple[str, dict[str, bytes]]:
        return content_hash(part.encode() for r in resources for part in (r.name, r.version.hash)), {}

    return _sets.get(resources, hashed)


def _join(type_url: str, resources: tuple[Resource, ...], bodies: _Bodies) -> bytes:
    """Return the resources of a response; kept with their set if that is small, or one of the newest."""
    joined = b"".join(_sotw_entry(type_url, resource) for resource in resources)
    if len(joined) > _SHARED:
        if len(joined) > _LARGEST:
            return joined
        if len(_large) == _LARGE:
            _large.popleft().clear()
        _large.append(bodies)
    bodies[type_url] = joined
    return joined


def sotw_response(
    type_url: str, resources: Mapping[str, Resource], revision: int, nonce: str, identifier: str
) -> tuple[str, bytes]:
    """Encode a DiscoveryResponse; return its ``version_info`` and its bytes."""
    ordered = tuple(resources[name] for name in sorted(resources))

    def encoded() -> _Encoded:
        if len(ordered) == 1:
            joined = _sotw_entry(type_url, ordered[0])
            content = content_hash((ordered[0].name.encode(), ordered[0].version.hash.encode()))
        else:
            content, bodies = _remembered(ordered)
            joined = bodies.get(type_url) or _join(type_url, ordered, bodies)
        version = f"{revision}.{content}"
        tail = _field(1, version.encode()) + _field(5, nonce.encode()) + _control_plane(6, identifier)
        return version, b"".join((joined, _text(4, type_url), tail))

    return _shared(("sotw", type_url, revision, nonce, identifier), ordered, encoded)


def delta_response(
    type_url: str,
    resources: Iterable[Resource],
    removed: tuple[str, ...],
    revision: int,
    nonce: str,
    identifier: str,
) -> bytes:
    """Encode a DeltaDiscoveryResponse; ``revision`` goes into ``system_version_info``, for people."""
    resources = tuple(resources)
    ids = id(resources[0]) if len(resources) == 1 else tuple(map(id, resources))
    key = (ids, nonce, type_url, removed, revision, identifier)
    entry = _recent.get(key)
    if entry is not None:
        return entry[1][1]
    parts = [_delta_entry(type_url, resource) for resource in resources]
    parts += [_field(6, name.encode()) for name in removed]
    parts += [_text(4, type_url), _field(1, str(revision).encode()), _field(5, nonce.encode())]
    parts.append(_control_plane(7, identifier))
    return _keep(key, resources, ("", b"".join(parts)))[1]
