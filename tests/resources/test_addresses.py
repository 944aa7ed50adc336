from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.resources.addresses import network

GROUPS = st.lists(st.sampled_from([0, 0, 0, 1, 0xDB8, 0x2001, 0xFFFF, 0x8000]), min_size=8, max_size=8)
SIXES = st.one_of(
    st.integers(0, 2**128 - 1),
    GROUPS.map(lambda found: sum(g << 16 * i for i, g in enumerate(found))),
)


def holds(found, address):
    return re.fullmatch(network(str(found)), str(address)) is not None


@settings(max_examples=500, deadline=None)
@given(SIXES, st.integers(0, 128), SIXES)
def test_networks_of_ipv6_are_found_in_canonical_text(base, length, other):
    found = ip_network((base | 1 << 125, max(length, 3)), strict=False)
    first, last = int(found.network_address), int(found.broadcast_address)

    for number in (first, last, first | (other & (last - first)), other, first - 1, (last + 1) % 2**128):
        if number >> 112:  # what begins with zeros may be written with an IPv4 address in it
            assert holds(found, IPv6Address(number)) is (IPv6Address(number) in found)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_networks_of_ipv4_are_found(base, length, other):
    found = ip_network((base, length), strict=False)
    first, last = int(found.network_address), int(found.broadcast_address)

    for number in (
        first,
        last,
        first | (other & (last - first)),
        other,
        (first - 1) % 2**32,
        (last + 1) % 2**32,
    ):
        assert holds(found, IPv4Address(number)) is (IPv4Address(number) in found)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("10.1.2.3", True),
        ("192.0.2.1, 10.1.2.3", True),
        ("192.0.2.1,10.1.2.3 ", True),
        ("10.1.2.3, 192.0.2.1", False),
        ("110.1.2.3", False),
        ("10.1.2.3.4", False),
    ],
)
def test_of_a_list_the_last_address_counts(text, inside):
    assert (re.fullmatch(network("10.0.0.0/8"), text) is not None) is inside


def test_loopback_of_ipv6():
    assert holds("::1", ip_address("::1"))
    assert not holds("::1", ip_address("::2"))
