"""Versions and hashes."""

from __future__ import annotations

import pytest

from controlplane.xds.snapshot import content_hash
from controlplane.xds.version import Version


def test_equality_looks_at_content_alone():
    assert Version(1, "ab") == Version(2, "ab")
    assert Version(1, "ab") != Version(1, "cd")
    assert Version.parse(str(Version(7, "ab"))) == Version(7, "ab")
    assert Version.parse("7.ab").revision == 7


@pytest.mark.parametrize("text", ["", "1", ".ab", "1.", "x.ab", "-1.ab", "²1.ab", "1" * 19 + ".ab"])
def test_versions_of_other_servers_are_not_ours(text):
    assert Version.parse(text) is None


def test_content_hash_depends_on_boundaries_and_order():
    assert (
        len({content_hash(parts) for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"c", b"ab"), (b"abc",))}) == 4
    )
