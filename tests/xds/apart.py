"""The protocol library and the server once more, sharing nothing with the others; no test."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

COPIED = ("controlplane.xds", "controlplane.server")


def library() -> SimpleNamespace:
    """Return a server, and worlds for it, of modules that nobody else has.

    It does not recall by its content what a client brings back. A server that serves many knows more contents
    than one that serves one, and rightly serves better by it; this is about what must not differ.
    """
    parents = {name.rpartition(".")[2]: importlib.import_module(name) for name in COPIED}
    mine = _taken()
    try:
        return _named(_load(Path(__file__).parent / "conftest.py"))
    finally:
        _taken()
        sys.modules.update(mine)
        for name, module in parents.items():
            setattr(sys.modules["controlplane"], name, module)


def _named(model) -> SimpleNamespace:
    """Return what a server is made of, with the worlds of the same modules."""
    streams = importlib.import_module("controlplane.server.streams")
    snapshot, view, delta, sotw = (
        importlib.import_module(f"controlplane.xds.{name}") for name in ("snapshot", "view", "delta", "sotw")
    )
    delta.recall = sotw.recall = lambda _name, _content: None
    return SimpleNamespace(
        World=model.World,
        Snapshot=snapshot.Snapshot,
        Peer=view.Peer,
        XdsServer=streams.XdsServer,
        Limits=streams.Limits,
    )


def _taken() -> dict[str, ModuleType]:
    found = {name: module for name, module in sys.modules.items() if name.startswith(COPIED)}
    for name in found:
        del sys.modules[name]
    return found


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_apart", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module
