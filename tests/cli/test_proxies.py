"""What `turnout get proxies` prints."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from controlplane.cli.show import proxies_view
from controlplane.web.shown import ProxyShown, TypeShown

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def kind(name, *, acked="", nacked="", waiting=None):
    return TypeShown(
        type=name, asked="*", resources=1, sent=acked, sent_at=None, acked=acked, acked_at=None,
        nacked=nacked, nacked_at=None, gated=0, waiting_seconds=waiting,
    )  # fmt: skip


def test_who_lags_behind_and_what_was_refused_is_seen_in_the_table():
    types = (
        kind("Cluster", acked="9.ab"),
        kind("RouteConfiguration", acked="12.cd", nacked="13.ef", waiting=75.4),
        kind("Listener", nacked="several"),
    )
    proxies = [
        ProxyShown(
            id=name, fleet="edge", address="10.0.0.1:1", version="1.40.0", protocol="delta", statistics="ok",
            connected_at=NOW - timedelta(hours=2, seconds=3), state=state, problems=problems, types=types,
        )
        for name, state, problems, types in (
            ("edge-1", "nacked", ("RouteConfiguration 'a' waits for Cluster 'b'",), types),
            ("edge-2", "waiting", (), ()),
        )
    ]  # fmt: skip

    console = Console(file=io.StringIO(), width=240)
    console.print(proxies_view(proxies, NOW))
    heads, first, second = (line.split() for line in console.file.getvalue().splitlines())

    assert heads[:7] == ["proxy", "fleet", "state", "waits", "acked", "nacked", "age"]
    assert first[:7] == ["edge-1", "edge", "nacked", "1m15s", "12.cd", "13.ef", "2h3s"]
    assert " ".join(first[11:]) == "RouteConfiguration 'a' waits for Cluster 'b'"
    assert second[:7] == ["edge-2", "edge", "waiting", "-", "-", "-", "2h3s"]


def test_what_a_proxy_says_is_shown_and_not_obeyed():
    proxy = ProxyShown(
        id="edge-1", fleet="edge", address="10.0.0.1:1", version="1.40.0", protocol="delta", statistics="ok",
        connected_at=NOW, state="nacked", problems=("refused: \x1b[2J\x1b[31mno\nedge-2  edge  synced",),
    )  # fmt: skip

    console = Console(file=io.StringIO(), width=240)
    console.print(proxies_view([proxy], NOW))
    lines = console.file.getvalue().splitlines()

    assert len(lines) == 2
    assert lines[1].rstrip().endswith(r"refused: \x1b[2J\x1b[31mno\nedge-2  edge  synced")
