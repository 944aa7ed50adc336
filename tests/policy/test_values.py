from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.policy.documents import PrometheusCondition
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.values import (
    format_duration,
    format_share,
    parse_address,
    parse_duration,
    parse_host,
    parse_ip_address,
    parse_limit,
    parse_share,
    shown,
)


@given(st.integers(0, 10_000))
def test_shares_survive_a_round_trip(buckets):
    assert parse_share(format_share(buckets * 100)) == buckets * 100


@given(st.integers(0, 366 * 86_400_000))
def test_durations_survive_a_round_trip(ms):
    assert parse_duration(format_duration(timedelta(milliseconds=ms))) == timedelta(milliseconds=ms)


@pytest.mark.parametrize(
    "value",
    ["101%", "-1%", "5", 5, 0.05, True, None, "0.001%", "5 %", "%", "nan%", "1e1%", "٥%", [], float("nan")],
)
def test_what_is_no_share_is_refused(value):
    with pytest.raises(ValueError, match="is not"):
        parse_share(value)


@pytest.mark.parametrize(
    "value", ["5", 5, "-5s", "5 s", "1.5h", "", "s", "400d", "9" * 30 + "s", None, float("inf")]
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match=r"is not a duration|is longer than 366d"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "address"),
    [("10.0.0.1:80", "10.0.0.1:80"), ("[::1]:8080", "[::1]:8080"), ("[0:0::1]:65535", "[::1]:65535")],
)
def test_ip_addresses_are_read(value, address):
    assert parse_ip_address(value) == address


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.256:80",
        "::1:80",
        "[10.0.0.1:80",
        "a b:80",
        "10.0.0.1:080",
        ":80",
        80,
        "10.0.0.1:80\n",
    ],
)
def test_what_is_no_ip_address_with_a_port_is_refused(value):
    with pytest.raises(
        ValueError, match=r"is not an IP address with a port; write '10\.0\.0\.1:8080' or '\[::1\]:8080'$"
    ):
        parse_ip_address(value)


def test_a_dns_name_is_sent_to_its_own_field():
    assert parse_address("Checkout.prod.svc:8080") == "checkout.prod.svc:8080"
    with pytest.raises(ValueError, match="a DNS name goes in 'dns'"):
        parse_ip_address("checkout.prod.svc:8080")


@pytest.mark.parametrize("value", ["shop.example.com", "*.example.com", "*", "localhost", "Shop.Example.com"])
def test_hosts_are_read_in_lower_case(value):
    assert parse_host(value) == value.lower()


@pytest.mark.parametrize(
    "value", ["", "a.*.com", "shop:80", "a b", ".com", "-a.com", "x" * 254, None, "shop.example.com\n"]
)
def test_what_is_no_host_is_refused(value):
    with pytest.raises(ValueError, match="is not a host"):
        parse_host(value)


@pytest.mark.parametrize("ms", EDGES_MS)
def test_limits_on_edges_are_read(ms):
    assert parse_limit(f"{ms}ms") == timedelta(milliseconds=ms)


def test_long_values_are_cut_in_messages():
    assert len(shown("x" * 10_000)) < 100
    assert [shown(None), shown(True), shown(5), shown("a")] == ["null", "true", "5", "'a'"]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("max(depth)", 0),
        ("sum(rate(x[5m])) / sum(rate(y[1m]))", 300),
        ("max_over_time(rate(x[90s])[1h30m:1m])", 5400),
        ('rate(x{a=~"[0-9]+"}[500ms])', 0.5),
    ],
)
def test_a_query_reaches_as_far_back_as_its_longest_range(query, seconds):
    assert PrometheusCondition(name="q", query=query, at_most=1).reach == timedelta(seconds=seconds)
