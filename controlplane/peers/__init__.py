"""Other systems' release documents, made into ours. Pure: texts in, documents and notes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import yaml

from controlplane.peers import argo, flagger, vamp
from controlplane.peers.reading import Documents, Json, Note, Notes

Reader = Callable[[Documents, Notes, str], list[Json]]

READERS: Mapping[str, tuple[frozenset[str], Reader]] = {
    "Argo Rollouts": (frozenset({"Rollout", "AnalysisTemplate", "ClusterAnalysisTemplate"}), argo.read),
    "Flagger": (frozenset({"Canary", "MetricTemplate", "AlertProvider"}), flagger.read),
    "Vamp": (frozenset({"policy"}), vamp.read),
}


@dataclass(frozen=True, slots=True)
class Translated:
    """What became of foreign documents.

    Attributes:
        documents: Ours, as plain data.
        notes: All that was not carried over as it was, in order.
        unknown: Documents that are of no system we read.
    """

    documents: tuple[Json, ...]
    notes: tuple[Note, ...]
    unknown: tuple[str, ...]

    def yaml(self) -> str:
        """Return our documents as a file of YAML."""
        return "---\n".join(
            yaml.safe_dump(_plain(each), sort_keys=False, allow_unicode=True, width=100)
            for each in self.documents
        )


def translate(files: Mapping[str, str], fleet: str) -> Translated:
    """Return our documents for all of another system's in ``files``.

    Args:
        files: Texts by name, YAML or JSON.
        fleet: Name of the fleet that the services are put into.

    Raises:
        ValueError: If a file cannot be read; the message says which and where.
    """
    found, unknown = _documents(files)
    return replace(convert(found, fleet), unknown=tuple(unknown))


def convert(documents: Documents, fleet: str) -> Translated:
    """Return our documents for another system's, which are all of kinds that we read."""
    notes, made = Notes(), []
    for kinds, read in READERS.values():
        mine = {key: body for key, body in documents.items() if key[0] in kinds}
        if mine:
            made += read(mine, notes, fleet)
    notes.finish()
    return Translated(tuple(made), tuple(notes.found), ())


def _documents(files: Mapping[str, str]) -> tuple[dict[tuple[str, str], Json], list[str]]:
    found: dict[tuple[str, str], Json] = {}
    unknown = []
    for name, text in sorted(files.items()):
        try:
            bodies = list(yaml.safe_load_all(text))
        except yaml.YAMLError as error:
            raise ValueError(f"{name}: is neither YAML nor JSON: {' '.join(str(error).split())}") from None
        for body in bodies:
            if body is None:
                continue
            key = _key(body)
            if key is None:
                unknown.append(f"{name}: {_kind(body)}")
            elif key in found:
                unknown.append(f"{name}: {'/'.join(key)} is there twice; import this one by itself")
            else:
                found[key] = body
    return found, unknown


def _key(body: object) -> tuple[str, str] | None:
    if not isinstance(body, Mapping):
        return None
    known = frozenset().union(*(kinds for kinds, _ in READERS.values()))
    kind, metadata = body.get("kind"), body.get("metadata")
    if isinstance(kind, str) and kind in known and isinstance(metadata, Mapping):
        return kind, str(metadata.get("name", "unnamed"))
    if "kind" not in body and isinstance(body.get("steps"), list) and "type" in body:
        return "policy", str(body.get("name") or body.get("id") or "unnamed")
    return None


def _kind(body: object) -> str:
    kind = body.get("kind", "no kind") if isinstance(body, Mapping) else type(body).__name__
    return f"{kind!r} is of no system that can be imported; known: {', '.join(sorted(READERS))}"


def _plain(value: object) -> object:
    """Return a copy without shared parts, which YAML would write as anchors."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
