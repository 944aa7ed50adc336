"""Lists of users as regular expressions over the header that names them, each small enough for Envoy.

Envoy has no set of strings among its route matchers, and refuses an expression of more instructions than the
bootstrap allows, which is 1000. RE2 shares beginnings, so sorted users make small expressions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os.path import commonprefix

from controlplane.policy.documents import UserSource
from controlplane.resources import cookies, targets
from controlplane.resources.names import whole_header
from controlplane.resources.regexes import escape

_INSTRUCTIONS = 880  # of the users in one expression


def patterns(users: Sequence[str], source: UserSource) -> Iterator[tuple[str, str]]:
    """Yield headers, and patterns for all of each: one holds if the source names a user who is listed.

    Args:
        users: Sorted.
        source: Where the user is named.
    """
    for chunk in _chunks(users):
        listed = f"(?:{'|'.join(map(escape, chunk))})"
        if header := whole_header(source):
            yield header, listed
        elif source.query:
            yield ":path", targets.holds(source.query, listed)
        else:
            yield "cookie", cookies.holds(source.cookie or "", listed)


def _chunks(users: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    total = 0
    for user in users:
        shared = len(commonprefix([chunk[-1], user])) if chunk else 0  # noqa: RUF071 - users, not paths
        size = len(user.encode()) - shared + 2
        if chunk and total + size > _INSTRUCTIONS:
            yield chunk
            chunk, total = [], 0
            size = len(user.encode()) + 2
        chunk.append(user)
        total += size
    if chunk:
        yield chunk
