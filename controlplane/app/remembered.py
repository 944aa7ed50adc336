"""What proxies refused on streams that are over: they refuse it still, until they have said otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.app.propagation import Refused, answered
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.type_urls import Ref
from controlplane.xds.view import StreamView

NODES = 10_000  # of a fleet; the oldest go first

Refusals = dict[Ref, Refused]


class Remembered:
    """Refusals of streams that have ended, by fleet and node; each counts while its version is the target."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Refusals]] = {}

    def note(self, view: StreamView, snapshot: Snapshot) -> None:
        """Take what a stream that has ended refused; ``snapshot`` is the fleet's."""
        if view.node is None or view.group is None:
            return
        nodes = self._of.setdefault(view.group, {})
        known = nodes.pop(view.node.id, {})
        found = {ref: each for ref, each in known.items() if not answered(view, ref, each.target)}
        for asked in view.types:
            for name, nack in asked.nacks.items():
                target = snapshot.of(asked.type_url).get(name)
                # Of what several share a mixture may have been refused, made from the target.
                part = bool(nack.owners) and view.revision == snapshot.revision
                if target is not None and (part or nack.version == target.version):
                    found[asked.type_url, name] = Refused(target.version, nack)
        if found:
            if len(nodes) >= NODES:
                del nodes[next(iter(nodes))]
            nodes[view.node.id] = found

    def of(self, fleet: str) -> Mapping[str, Refusals]:
        """Return what the nodes of a fleet refused."""
        return self._of.get(fleet, {})
