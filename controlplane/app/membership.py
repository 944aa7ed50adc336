"""Which fleet a node belongs to, or why it is not served. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.policy.documents import Fleet
from controlplane.policy.envoy_versions import too_old
from controlplane.policy.nodes import matches
from controlplane.xds.messages import Node


@dataclass(frozen=True, slots=True)
class Member:
    """What fleets a node is meant by; it is served if that is one, and nothing speaks against it.

    ``problem`` says why it is held without an answer, '' if it is served.
    """

    fleets: tuple[str, ...]
    problem: str = ""

    @property
    def group(self) -> str | None:
        """The group of the streams of the node, or None while it is held."""
        return None if self.problem else self.fleets[0]


def member(node: Node, fleets: Iterable[Fleet]) -> Member:
    """Return where a node belongs."""
    mine = tuple(fleet for fleet in fleets if matches(fleet.nodes, node))
    names = tuple(fleet.name for fleet in mine)
    if not mine:
        return Member((), "belongs to no fleet: nodes of no Fleet document match it")
    if len(mine) > 1:
        listed = " and ".join(repr(name) for name in names)
        return Member(names, f"belongs to fleets {listed}, and a node belongs to one: change their nodes")
    reasons = (too_old(kind, node.version) for kind in mine[0].kinds)
    return Member(names, next((reason for reason in reasons if reason), ""))
