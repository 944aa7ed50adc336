"""What a policy comes to is worked out once: a release asks for it several times in each interval."""

from __future__ import annotations

from controlplane.policy.pinned import PinnedPolicy


class Same:
    """A policy as a key of a memo: by identity, since hashing one costs more than what is looked up."""

    __slots__ = ("policy",)

    def __init__(self, policy: PinnedPolicy) -> None:
        self.policy = policy

    def __hash__(self) -> int:
        return id(self.policy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.policy is self.policy
