"""Versions that can be compared: `<store revision of the newest input>.<content hash>`.

Equality looks at the hash alone, so replicas agree and a reconnect costs nothing; the revision gives an
order, so a replica that is behind a client can tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Version:
    """A resource's version; two versions are equal when their content is."""

    revision: int = field(compare=False)
    hash: str

    def __str__(self) -> str:
        return f"{self.revision}.{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """Return the version that ``str()`` printed, or None for anything else (another server's version)."""
        revision, dot, content = text.partition(".")
        if not dot or not content or not revision.isascii() or not revision.isdigit() or len(revision) > 18:
            return None
        return cls(int(revision), content)
