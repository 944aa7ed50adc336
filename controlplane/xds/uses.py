"""What needs what the target has no longer: that stays with a client for as long.

To look through all that a client may have, after each of its answers, for all that has to go would cost the
square of their number. So what waits is looked at again only when the last one that needed it has left it.

A client that asks by name may use what it names for a while after it accepted what no longer needs it: gRPC
accepts a route before its calls go by that. It drops the name itself, so that is one more use, for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from controlplane.xds.holdings import Holdings
from controlplane.xds.type_urls import Ref

Before = dict[Ref, frozenset[Ref]]

_PATIENCE = 2  # times: the first one may come at once, as it is counted from what was named before


def count(conversations: Mapping[str, Holdings]) -> Counter[Ref]:
    """Count how many of the resources that the client may have need each."""
    found: Counter[Ref] = Counter()
    for each in conversations.values():
        if each.maybe or each.flights:
            names = {resource.name for resource in each.in_use()}
            found.update(chain.from_iterable(each.needs_of(name) for name in names))
        else:
            found.update(chain.from_iterable(resource.needs for resource in each.held.values()))
    return found


@dataclass(slots=True, eq=False)
class Uses:
    """The removals of a stream that wait, and how many resources need each: kept up while there are any.

    Attributes:
        before: What changed since, and what it needed before that.
    """

    conversations: Mapping[str, Holdings]
    before: Before = field(default_factory=dict)
    _counts: dict[Ref, int] = field(default_factory=dict)
    _behind: dict[Ref, list[Ref]] = field(default_factory=dict)  # what follows it and goes after it
    _named: dict[Ref, int] = field(default_factory=dict)  # how often the client was heard out

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return bool(self._counts)

    def of(self, ref: Ref) -> int | None:
        """Return how many need this, None if that is not counted."""
        return self._counts.get(ref)

    @property
    def hesitant(self) -> bool:
        """True while something stays for no other reason than that the client names it."""
        return any(self._waits_for_client(ref) for ref in self._named)

    def _waits_for_client(self, ref: Ref) -> bool:
        return self._named[ref] < _PATIENCE and not self._counts[ref]

    def linger(self, ref: Ref) -> bool:
        """Have a removal wait until the client drops the name; return False if that took too long."""
        if self._named.get(ref) == _PATIENCE:
            return False
        self.wait(ref, 0, None)
        self._named.setdefault(ref, 0)
        return True

    def hear_out(self) -> list[Ref]:
        """Return what was named for too long though nothing needs it: a time has passed."""
        waiting = [ref for ref in self._named if self._waits_for_client(ref)]
        for ref in waiting:
            self._named[ref] += 1
        return [ref for ref in waiting if self._named[ref] == _PATIENCE]

    def wait(self, ref: Ref, uses: int, leader: Ref | None) -> None:
        """Have a removal wait until nothing needs it, or if nothing does, until what it follows is gone."""
        if not self._counts:
            self._watch(self.before)
        self._counts[ref] = uses
        if not uses and leader is not None:
            self._behind.setdefault(leader, []).append(ref)

    def drop(self, refs: Iterable[Ref]) -> None:
        """Count these no longer: they do not wait to be taken away, or are."""
        for ref in refs:
            self._counts.pop(ref, None)
            self._named.pop(ref, None)
        if not self._counts:
            self.stop()

    def stop(self) -> list[Ref]:
        """Count nothing any more, and return what waited."""
        waiting = list(self._counts)
        self._watch(None)
        self.before, self._counts, self._behind, self._named = {}, {}, {}, {}
        return waiting

    def _watch(self, before: Before | None) -> None:
        for conversation in self.conversations.values():
            conversation.before = before

    def release(self) -> list[Ref]:
        """Take in what has changed, and return what has to be looked at: it may wait no more."""
        free: list[Ref] = []
        gone: list[Ref] = []
        for (type_url, name), needs in self.before.items():
            conversation = self.conversations[type_url]
            now = conversation.needs_of(name)
            if now is not needs:
                free += self._recount(needs - now, now - needs)
            if name not in conversation.held:
                free += self._behind.pop((type_url, name), ())
                gone.append((type_url, name))
        self.before.clear()
        self.drop(gone)
        return free

    def _recount(self, less: Iterable[Ref], more: Iterable[Ref]) -> list[Ref]:
        """Change the counts, and return what nothing needs any more."""
        counts, free = self._counts, []
        for ref in less:
            if ref in counts:
                counts[ref] -= 1
                if not counts[ref]:
                    free.append(ref)
        for ref in more:
            if ref in counts:
                counts[ref] += 1
        return free
