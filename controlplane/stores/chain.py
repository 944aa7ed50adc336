"""The log's chain of hashes: whoever changes, removes or inserts a record breaks it.

A record's hash covers its text, its number and the hash before it. That finds what was changed by accident
or by hand in the file; against somebody who computes the whole chain anew only a hash helps that was noted
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

START = "0" * 64  # before the first record


def link(before: str, number: int, body: str) -> str:
    """Return the hash of a record, 64 hexadecimal digits."""
    return sha256(f"{before}\n{number}\n{body}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Chain:
    """What a walk over the log found.

    Attributes:
        records: How many there are.
        head: Hash of the last one; START if there is none.
        broken: What is wrong, one line per place.
    """

    records: int
    head: str
    broken: tuple[str, ...]


def walk(rows: Iterable[tuple[int, str, str]], noted: tuple[int, str]) -> Chain:
    """Check the chain.

    Args:
        rows: Number, text and hash of each record, by number.
        noted: Number and hash of the last record, as they were noted with it.
    """
    before, last, broken = START, 0, []
    for number, body, written in rows:
        if number != last + 1:
            broken.append(f"record {last + 1}{f' to {number - 1}' if number > last + 2 else ''}: missing")
        elif written != link(before, number, body):
            broken.append(f"record {number}: was changed after it was written")
        # Go on from what is written, so that one change is reported once.
        before, last = written, number
    if (last, before) != noted:
        broken.append(f"the log ends with record {last}, but record {noted[0]} was written last")
    return Chain(last, before, tuple(broken))
