"""Seeded mutation of bytes: what a hostile or broken client might send instead."""

from __future__ import annotations

from random import Random
from typing import Final

_VARINTS: Final = (
    b"\0",
    b"\x01",
    b"\x7f",
    b"\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 11,
)
_TEXT: Final = (
    *(
        b"*",
        b"",
        b"\0",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        "é\u202e😀".encode(),
        b"../..",
        b"0",
        b"-1",
        b"1e999",
        b"nan",
    ),
    *(
        b"999999999999999999999",
        b"%s{0}",
        b"\n",
        b": ",
        b"- ",
        b"[",
        b"{",
        b"&a",
        b"*a",
        b"<<: ",
        b"!!python/x ",
        b"? ",
    ),
    *(
        b"|\n",
        b'"',
        b"'",
        b"#",
        b"---\n",
        b"...\n",
        b"\t",
        b"~",
        b"yes",
        b"0x10",
        b"12:30",
        b"100%",
        b"\r",
        b"\xef\xbb\xbf",
    ),
)


def mutate(random: Random, data: bytes, corpus: tuple[bytes, ...]) -> bytes:
    """Return ``data`` with one, two or four changes; ``corpus`` is what pieces are taken from."""
    for _ in range(1 << random.randrange(3)):
        data = random.choice(_CHANGES)(random, data, corpus)
    return data[: 1 << 20]


def _flip(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    if not data:
        return random.randbytes(4)
    place = random.randrange(len(data))
    return data[:place] + bytes((data[place] ^ 1 << random.randrange(8),)) + data[place + 1 :]


def _overwrite(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    place = random.randint(0, len(data))
    new = random.choice(_VARINTS) if random.random() < 0.5 else random.randbytes(random.randint(1, 8))
    return data[:place] + new + data[place + len(new) :]


def _insert(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    place = random.randint(0, len(data))
    return data[:place] + random.choice((*_VARINTS, *_TEXT)) + data[place:]


def _cut(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + data[start + random.randint(1, 1 + len(data) // 4) :]


def _end(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    return data[: random.randint(0, len(data))]


def _repeat(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    start = random.randint(0, len(data))
    piece = data[start : start + random.randint(1, 64)]
    return data[:start] + piece * (1 << random.randrange(9)) + data[start:]


def _splice(random: Random, data: bytes, corpus: tuple[bytes, ...]) -> bytes:
    other = random.choice(corpus)
    start, place = random.randint(0, len(other)), random.randint(0, len(data))
    return data[:place] + other[start : start + random.randint(1, 400)] + data[place:]


def _swap(random: Random, data: bytes, _: tuple[bytes, ...]) -> bytes:
    a, b, c = sorted(random.randint(0, len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


_CHANGES: Final = (_flip, _overwrite, _insert, _cut, _end, _repeat, _splice, _swap)
