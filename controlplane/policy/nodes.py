"""Which proxies a fleet means: does a node match, and could one node match two fleets.

Each field is a set of values on its own, so two fleets overlap exactly if they do in every field.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from controlplane.policy.values import shown

if TYPE_CHECKING:
    from controlplane.policy.documents import Nodes
    from controlplane.xds.messages import Node

Scalar = str | int | bool
Metadata = Mapping[str, Any]  # of scalars, and of such mappings

_TOKEN = re.compile(r"\[(!?)(\]?[^\]]*)\]|(\*)|(\?)|(.)", re.DOTALL)
_ANY = "*"


def parse_metadata(value: object) -> object:
    """Return a mapping of text, whole numbers, true and false, or of such mappings."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{shown(value)} is not a mapping with at least one key, such as {{role: edge}}")
    for path, leaf in leaves(value):
        if not all(isinstance(part, str) and part for part in path):
            raise ValueError(f"the key {shown(path[-1])} is not text; write it in quotes")
        if not isinstance(leaf, Scalar):
            name = ".".join(path)
            raise ValueError(f"{name}: {shown(leaf)} cannot be compared; text, a whole number, true or false")
    return value


def leaves(metadata: Metadata, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and value of everything in it that is not a mapping itself; an empty one is a value."""
    for key, value in metadata.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def matches(nodes: Nodes, node: Node) -> bool:
    """Return whether a node is one of the fleet's: every condition that is given holds."""
    if nodes.id is not None and not fnmatch.fnmatchcase(node.id, nodes.id):
        return False
    where = nodes.locality
    wanted = [(nodes.cluster, node.cluster)]
    if where is not None:
        wanted += [(where.region, node.region), (where.zone, node.zone), (where.sub_zone, node.sub_zone)]
    if any(asked not in (None, given) for asked, given in wanted):
        return False
    return all(_equal(_at(path, node.metadata), value) for path, value in leaves(nodes.metadata or {}))


def _at(path: Iterable[str], metadata: Metadata) -> Any:
    """Return what is at a path, or None: a client may say as much as it likes, so it is not all looked at."""
    there: Any = metadata
    for key in path:
        if not isinstance(there, Mapping):
            return None
        there = there.get(key)
    return there


def overlap(one: Nodes, other: Nodes) -> bool | None:
    """Return whether some node matches both: True, False, or None if only nodes nobody may have would.

    None means that each asks for something that the other leaves open.
    """
    first, second = dict(_fields(one)), dict(_fields(other))
    for field in first.keys() & second.keys():
        if not _meet(field, first[field], second[field]):
            return False
    return True if first.keys() <= second.keys() or second.keys() <= first.keys() else None


def _fields(nodes: Nodes) -> Iterator[tuple[tuple[str, ...], Scalar]]:
    if nodes.id is not None and nodes.id.strip(_ANY):
        yield ("id",), nodes.id
    if nodes.cluster is not None:
        yield ("cluster",), nodes.cluster
    for name, value in (nodes.locality.model_dump() if nodes.locality else {}).items():
        if value is not None:
            yield ("locality", name), value
    for path, value in leaves(nodes.metadata or {}):
        yield ("metadata", *path), value


def _meet(field: tuple[str, ...], one: Scalar, other: Scalar) -> bool:
    if field == ("id",):
        return globs_meet(str(one), str(other))
    return _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    """Compare as JSON does: true is not 1, but 1 is 1.0."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def globs_meet(one: str, other: str) -> bool:
    """Return whether some text matches both globs; sets of characters are taken to have one in common."""
    first, second = _tokens(one), _tokens(other)

    @cache
    def meet(i: int, j: int) -> bool:
        if i == len(first) or j == len(second):
            return all(token == _ANY for token in (*first[i:], *second[j:]))
        a, b = first[i], second[j]
        if _ANY in {a, b}:
            return meet(i + 1, j) or meet(i, j + 1)
        return _one(a, b) and meet(i + 1, j + 1)

    return meet(0, 0)


def _tokens(glob: str) -> tuple[str, ...]:
    """Return the glob as single characters, ``?``-like tokens (two characters and more) and stars."""
    found = []
    for sets in _TOKEN.finditer(glob):
        inverted, members, star, single, literal = sets.groups()
        if star:
            found.append(_ANY)
        elif single:
            found.append("[!]")  # everything
        elif members is not None:
            found.append(f"[{inverted}{members}]")
        else:
            found.append(f"={literal}")
    return tuple(found)


def _one(a: str, b: str) -> bool:
    """Return whether one character fits both tokens."""
    if a.startswith("=") and b.startswith("="):
        return a == b
    for literal, other in ((a, b), (b, a)):
        if literal.startswith("="):
            return other == "[!]" or fnmatch.fnmatchcase(literal[1:], other)
    return True
