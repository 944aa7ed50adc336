"""Roles of operators, each with all that the ones before it may."""

from __future__ import annotations

from typing import Literal, get_args

Role = Literal["viewer", "operator", "releaser", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)


def covers(have: Role, needed: Role) -> bool:
    """Return whether someone with role ``have`` may do what takes ``needed``."""
    return ROLES.index(have) >= ROLES.index(needed)
