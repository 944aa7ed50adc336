"""Who gets the new version: worked out from what `turnout cohort RELEASE -o json` publishes, and no more.

    turnout cohort checkout-2.4.0 -o json > published.json
    python cohort.py published.json everyone < users.txt

One user a line, on standard input; the segment is the group that their requests are in.
"""

import json
import sys
from pathlib import Path

import xxhash


def bucket(salt, user):
    """Return a number from 0 to 9999: the same for a user on every proxy, for as long as the release runs."""
    return xxhash.xxh64_intdigest(f"{salt}:{user}".encode(), seed=0) % 10_000


def version(published, segment, user):
    """Return the version that answers the user's requests in a segment."""
    place = bucket(published["salt"], user)
    group = next(group for group in published["groups"] if group["segment"] == segment)
    chosen = any(start <= place < end for start, end in group["spans"])
    return published["canary"] if chosen else published["stable"]


if __name__ == "__main__":
    published = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for user in map(str.strip, sys.stdin):
        found = bucket(published["salt"], user), version(published, sys.argv[2], user)
        sys.stdout.write(f"{user},{found[0]},{found[1]}\n")
