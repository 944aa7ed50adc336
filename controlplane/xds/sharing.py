"""What streams with the same history have in common: one object for all of them, where each had its own.

Of thousands of streams, what is not shared has to be fetched from memory for each push and each ACK.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from controlplane.xds.memory import IdentityCache
from controlplane.xds.snapshot import Resource

Table = Mapping[str, Resource]  # by name; a value, which is never changed

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
NOBODY: Final[frozenset[str]] = frozenset()
NO_NAMES: Final[set[str]] = set()
"""Of whoever has none of its own: nothing is added to it."""

_known: IdentityCache[Table] = IdentityCache(64)  # by what is in them
_later: IdentityCache[Table] = IdentityCache(64)  # by what they came of
_names: WeakKeyDictionary[frozenset[str], ReferenceType[frozenset[str]]] = WeakKeyDictionary()


def shared(table: Table) -> Table:
    """Return a table of these very resources, in this order: the same one as before, if it is remembered.

    It must not have what a client brought: that would outlive the client.
    """
    if not table:
        return NOTHING
    found = _known.get(tuple(table.values()), lambda: table)
    return found if found.keys() == table.keys() else table


def later(table: Table, updates: Table, removed: tuple[str, ...] = ()) -> Table:
    """Return a shared table after a change; all that had the same one come to have the same one."""
    return _later.get((table, updates, *removed), partial(_made, table, updates, removed))


def _made(table: Table, updates: Table, removed: tuple[str, ...]) -> Table:
    return shared(changed(table, updates, removed))


def changed(table: Table, updates: Table, removed: Iterable[str]) -> dict[str, Resource]:
    """Return a new table after a change."""
    made = {**table, **updates}
    for name in removed:
        made.pop(name, None)
    return made


def named(names: frozenset[str]) -> frozenset[str]:
    """Return a set of names, the same one for all who have an equal one."""
    if not names:
        return NOBODY
    known = _names.get(names)
    same = known() if known is not None else None
    if same is None:
        _names[names] = ref(names)
        return names
    return same


def more(names: set[str], new: Iterable[str]) -> set[str]:
    """Add names to a set of one's own, and return it; it is made if there is none."""
    if names is NO_NAMES:
        return set(new) or NO_NAMES
    names.update(new)
    return names


def fewer(names: set[str], gone: Iterable[str]) -> set[str]:
    """Take names from a set of one's own, and return it if it has others."""
    names.difference_update(gone)
    return names or NO_NAMES
