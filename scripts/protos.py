"""Compile protos/ into controlplane/_pb/, or check that what is committed is what would come out.

The files are mapped to the virtual path controlplane/_pb/, so the generated imports are right as they are and
no descriptor can collide with another package's.
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "controlplane" / "_pb"


def compile_into(folder: Path) -> None:
    """Generate all modules below ``folder``/controlplane/_pb."""
    names = sorted(path.name for path in (ROOT / "protos").glob("*.proto"))
    known = Path(grpc_tools.__file__).parent / "_proto"  # google/protobuf/*.proto
    sources = [f"-Icontrolplane/_pb={ROOT / 'protos'}", f"-I{known}"]
    arguments = [*sources, f"--python_out={folder}", f"--pyi_out={folder}"]
    if protoc.main(["protoc", *arguments, *(f"controlplane/_pb/{name}" for name in names)]) != 0:
        sys.exit("protoc failed")


def main() -> None:
    """Generate, or with --check compare."""
    if "--check" not in sys.argv:
        compile_into(ROOT)
        return
    with tempfile.TemporaryDirectory() as name:
        compile_into(Path(name))
        made = Path(name) / "controlplane" / "_pb"
        fresh = sorted(path.name for path in made.iterdir())
        kept = sorted(path.name for path in TARGET.glob("*_pb2.py*"))
        _, changed, missing = filecmp.cmpfiles(made, TARGET, fresh, shallow=False)
        if wrong := sorted({*changed, *missing, *(set(kept) - set(fresh))}):
            sys.exit(f"not as generated: {', '.join(wrong)}; run `make protos`")


if __name__ == "__main__":
    main()
