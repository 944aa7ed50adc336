from controlplane.policy.documents import Match
from controlplane.release.splits import Split
from controlplane.resources.buckets import bucket
from controlplane.resources.membership import members

FEW = Split("few", Match(users=("alice", "bob")), ((0, 10_000),))
TEN = Split("everyone", None, ((0, 1000),))


def who(segment, *users):
    return [(m.user, m.segment, m.canary) for m in members((FEW, TEN), "s", users, segment)]


def test_who_is_listed_is_in_the_list_and_nobody_else():
    low = next(name for name in map(str, range(100)) if bucket("s", name) < 1000)
    high = next(name for name in map(str, range(100)) if bucket("s", name) >= 1000)

    for segment in ("everyone", "few"):
        assert who(segment, "alice", low, high) == [
            ("alice", "few", True),
            (low, "everyone", True),
            (high, "everyone", False),
        ]
