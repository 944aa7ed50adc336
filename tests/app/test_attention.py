"""What needs a person is in the list of problems and in the figures, the worst first."""

from dataclasses import replace
from datetime import UTC, datetime
from unittest.mock import ANY

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controlplane.app.attention import AGAIN, MOST, of_proxies
from controlplane.app.behind import AHEAD, LASTS, Behind
from controlplane.app.membership import Member
from controlplane.app.metrics import Metrics
from controlplane.sources.collector import Link
from controlplane.web.asked import Act, Order
from controlplane.xds.messages import Node
from controlplane.xds.type_urls import CLUSTER, LISTENER
from controlplane.xds.version import Version
from controlplane.xds.view import Nack, Peer, StreamView, TypeView, Versions
from tests.app.site import INTERVAL, Many
from tests.stepping import at_once

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANN = Act(actor="ann")
TO_V2 = Order(service="shop", to="v2", policy="quick", actor="ann")
KEEPS = f"bad; what it had stays; {AGAIN}"
NO_FLEET = "belongs to no fleet: nodes of no Fleet document match it"


def view(proxy, group="edge", *, type_url=CLUSTER, refuses=(), words="bad", behind=False, acked=()):
    nacks = {name: Nack(Version(1, "x"), words, NOW) for name in refuses}
    known = {name: Version(1, "x") for name in acked}
    types = (TypeView(type_url, True, True, frozenset(), NOW, Versions({}), known, nacks, None, {}, None),)
    node = Node(proxy, "edge" if group else "edgy") if proxy else None
    return StreamView(Peer("10.0.0.1:1"), "delta", NOW, node, group, 1, behind, types)


def told(*views):
    return list(of_proxies(views, lambda _: Member((), NO_FLEET)))


def figures(site):
    registry = CollectorRegistry()
    registry.register(Metrics(site.plane))
    lines = generate_latest(registry).decode().splitlines()
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}


async def going(folder, kit, more=""):
    site = await kit.start(folder, quick=kit.POLICY + more)
    site.publisher.publish(await site.store.world())
    await site.plane.order(TO_V2)
    await kit.until(site, lambda w: w.releases["shop-v2"].at == "ten")
    return site


# --- proxies ----------------------------------------------------------------------------------------------


def test_proxies_with_the_same_trouble_share_a_line_and_the_worst_comes_first():
    many = [view(f"edge-{n}", refuses=["c"], acked=["c"]) for n in range(9)]
    lost = view("lost-1", None)
    closed = view("edge-x", type_url=LISTENER, refuses=["http"])

    lines = told(*many, view("fine"), lost, closed)

    assert [line.partition(" of fleet 'edge'")[::2] for line in lines] == [
        (
            "proxy edge-x",
            f": has no listener 'http', which it refuses: bad; nobody serves its address; {AGAIN}",
        ),
        (f"proxy lost-1: not served: {NO_FLEET}; correct them, or what its bootstrap says of its node", ""),
        (
            "proxies edge-0, edge-1, edge-2, edge-3, edge-4 and 4 more",
            f": refuses Cluster 'c': {KEEPS}",
        ),
    ]


def test_what_has_not_said_who_it_is_is_no_problem_yet():
    assert told(view("", None)) == []


def test_a_proxy_that_is_ahead_of_the_store_is_one():
    (line,) = told(view("edge-1", behind=True))

    assert line.startswith(
        "proxy edge-1 of fleet 'edge': has seen newer versions than this store has: restore"
    )


def test_the_lines_of_proxies_are_bounded():
    lines = told(*(view(f"edge-{n}", refuses=["c"], words=f"bad {n}") for n in range(100)))

    assert len(lines) == MOST + 1
    assert lines[-1] == f"proxies: {100 - MOST} more troubles of this kind: `turnout get proxies`"


async def test_unknown_and_refusing_proxies_are_problems_of_the_plane(site, monkeypatch):
    site.publisher.publish(await site.store.world())
    views = (view("edge-1", None), view("edge-2", refuses=["shop~v1"]))
    monkeypatch.setattr(site.publisher.server, "views", lambda: views)

    assert [p.partition(":")[0] for p in site.plane.problems()] == [
        "proxy edge-1",
        "proxy edge-2 of fleet 'edge'",
    ]
    shown = figures(site)
    assert shown["turnout_problems"] == 2
    assert shown['turnout_proxies{fleet="-",state="unknown"}'] == 1
    assert shown['turnout_proxies{fleet="edge",state="nacked"}'] == 1


async def test_who_holds_a_release_by_its_statistics_is_shown_where_that_is_looked_for(site, monkeypatch):
    """`get problems` sends to `get proxies`, whose row must not say that all is well."""
    site.publisher.publish(await site.store.world())
    monkeypatch.setattr(
        site.publisher.server, "views", lambda: tuple(served(view(n)) for n in ("edge-1", "edge-2"))
    )
    links, seconds = {"edge-2": Link(Peer("10.0.0.1:1"), frozenset({"shop"}))}, INTERVAL
    for n in range(5):
        at_once(site.collector.counting(NOW + n * seconds, NOW + (n + 1) * seconds, links, {"shop": {"v1"}}))
        site.collector.commit()

    assert [proxy.statistics for proxy in await site.plane.proxies()] == ["ok", "silent for 20s"]


async def test_a_scrape_looks_at_the_streams_once(site, monkeypatch):
    site.publisher.publish(await site.store.world())
    views, looks = site.publisher.server.views, []
    monkeypatch.setattr(site.publisher.server, "views", lambda: looks.append(1) or views())

    assert figures(site)["turnout_problems"] == 0
    assert len(looks) == 1


class Pending:
    """A monotonic clock, moved by hand."""

    seconds = 100.0

    def __call__(self):
        return self.seconds


def served(view):
    return replace(view, types=tuple(replace(each, acked_at=NOW, acked=Versions({})) for each in view.types))


async def test_a_proxy_that_is_ended_as_ahead_again_and_again_is_told_throughout(site, monkeypatch):
    site.publisher.publish(await site.store.world())
    ended, clock = site.publisher.server._callbacks.ended, Pending()
    monkeypatch.setattr(site.publisher, "_behind", Behind(clock))
    ahead = replace(view("edge-1", behind=True), types=())
    new, back = replace(ahead, behind=False), served(view("edge-1"))
    nacks = {"c": Nack(Version(1, "x"), "bad", NOW)}
    refused = replace(back, types=tuple(replace(t, nacks=nacks, acked_at=None) for t in back.types))
    moved = replace(new, group=None)

    async def looks(*open_):
        monkeypatch.setattr(site.publisher.server, "views", lambda: open_)
        told = [problem for problem in site.plane.problems() if AHEAD in problem]
        rows = [(proxy.state, proxy.problems) for proxy in await site.plane.proxies()]
        return len(told), rows, figures(site).get('turnout_proxies{fleet="edge",state="behind"}', 0)

    site.publisher._connected(ahead)
    ended(ahead)
    told = [await looks(), await looks(new), await looks(ahead)]
    clock.seconds += LASTS
    well = [await looks()]
    site.publisher._connected(ahead)
    ended(ahead)
    well += [await looks(back), await looks(refused), await looks(moved)]
    site.publisher._connected(back)
    ended(back)
    well.append(await looks())

    assert told == 3 * [(1, [("behind", (AHEAD,))], 1)]
    rows = [[], [("synced", ())], [("nacked", ("Cluster 'c': bad",))], [("refused", (ANY,))], []]
    assert well == [(0, each, 0) for each in rows]


# --- releases ---------------------------------------------------------------------------------------------


async def test_a_frozen_release_is_a_problem_and_a_figure(tmp_path, kit):
    site = await going(tmp_path, kit, "on_failure: {do: freeze}\n")
    site.traffic.mode = "bad"
    await kit.until(site, lambda w: w.releases["shop-v2"].halt == "frozen")
    await kit.tick(site, 25)

    (problem,) = site.plane.problems()
    assert problem.startswith("release shop-v2: frozen for 2m: errors in segment everyone ")
    assert "`turnout resume shop-v2`" in problem
    assert "`turnout rollback shop-v2` takes it back" in problem
    shown = figures(site)
    assert shown['turnout_release_halt{halt="frozen",release="shop-v2"}'] == 1
    held = shown['turnout_release_held_seconds{code="frozen",kind="person",release="shop-v2"}']
    assert held == 125
    await site.store.close()


@pytest.mark.parametrize(
    ("mode", "code", "reason"),
    [
        (
            "none",
            "no-proxy",
            "no proxy is connected; start the proxies of its fleets, or look why",
        ),
        ("nack", "nack", "b refuses Cluster 'shop~v2': bad; correct what is refused: `turnout get proxies`"),
    ],
)
async def test_a_release_that_is_held_for_long_is_a_problem_and_says_why(tmp_path, kit, mode, code, reason):
    site = await going(tmp_path, kit)
    site.fleet.mode = mode
    await kit.tick(site, 4)
    early = site.plane.problems()
    await kit.tick(site, 16)

    assert early == ()
    assert site.plane.problems()[0].startswith(f"release shop-v2: held for 1m: {reason}")
    shown = figures(site)
    key = f'turnout_release_held_seconds{{code="{code}",kind="wrong",release="shop-v2"}}'
    assert shown[key] == 100
    assert 'turnout_release_halt{halt="frozen",release="shop-v2"}' not in shown
    await site.store.close()


async def test_a_trouble_that_is_over_is_not_told_as_one_that_is(tmp_path, kit):
    """Until it has been away for as long as it must last it may come back, and is said to be over."""
    site = await going(tmp_path, kit)
    site.fleet.mode = "none"
    await kit.tick(site, 20)
    site.fleet.mode = "all"
    await kit.tick(site, 3)
    over = site.plane.problems()
    await kit.tick(site, 6)

    assert over == ("release shop-v2: was held for 1m (no proxy is connected), not any more for 15s",)
    assert site.plane.problems() == ()
    await site.store.close()


async def test_a_trouble_that_follows_another_is_told_by_itself_and_with_what_to_do_then(tmp_path, kit):
    site = await going(tmp_path, kit)
    site.fleet.mode = "none"
    await kit.tick(site, 20)
    site.fleet.mode = "nack"
    await kit.tick(site)

    (problem,) = site.plane.problems()
    held = "release shop-v2: held for 1m, by this for 0s"
    assert problem.startswith(f"{held}: b refuses Cluster 'shop~v2': bad; correct what")
    await site.store.close()


async def test_what_is_over_stands_last(tmp_path, kit):
    other = kit.SERVICE.replace("name: shop", "name: cart").replace("shop.example", "cart.example")
    site = await kit.start(tmp_path, cart=other)
    site.publisher.publish(await site.store.world())
    site.statistics = site.traffic = Many(["shop", "cart"])
    await site.plane.order(TO_V2)
    await site.plane.order(TO_V2.model_copy(update={"service": "cart"}))
    site.fleet.mode = "none"
    await kit.tick(site, 20)
    site.fleet.of = {"cart": "all"}
    await kit.tick(site)

    assert [problem.split(" for ")[0] for problem in site.plane.problems()] == [
        "release shop-v2: held",
        "release cart-v2: was held",
    ]
    await site.store.close()


async def test_what_a_rollback_cannot_reach_is_a_problem(tmp_path, kit):
    site = await going(tmp_path, kit)
    site.fleet.mode = "some"
    await site.plane.act("shop-v2", "rollback", ANN)
    await kit.tick(site, 10)

    (problem,) = site.plane.problems()
    assert problem.startswith(
        "release shop-v2: held for 50s: may still serve the canary: b; end what cannot be"
    )
    await site.store.close()


@pytest.mark.parametrize(
    ("code", "kind", "usual"),
    [("approval", "person", 15), ("paused", "person", 60), ("manual", "person", 20)],
)
async def test_who_waits_for_a_person_is_a_problem_after_what_is_usual(tmp_path, kit, code, kind, usual):
    approve = kit.POLICY.replace("everyone: 10%,", "everyone: 10%, approve: {role: releaser},")
    more = {"quick": approve} if code == "approval" else {}
    more |= {"order": kit.RELEASE.replace("auto", "manual")} if code == "manual" else {}
    site = await kit.start(tmp_path, **more)
    site.publisher.publish(await site.store.world())
    if code != "manual":
        await site.plane.order(TO_V2)
    name = "shop-2" if code == "manual" else "shop-v2"
    await kit.tick(site, 3)
    if code == "paused":
        await site.plane.act(name, "pause", Act(actor="ann", reason="lunch"))
    await kit.until(site, lambda w: w.releases[name].hold == code)
    for _ in range(usual - 1):
        await kit.tick(site, 6, seconds=10)
    early = site.plane.problems()
    await kit.tick(site, 12, seconds=10)

    assert early == ()
    assert len(site.plane.problems()) == (code != "manual")
    said = {
        "approval": "waits for 16m: waits for a releaser",
        "paused": "paused for 1h1m: pause by ann: lunch",
    }
    if code in said:
        assert said[code] in site.plane.problems()[0]
    assert f'turnout_release_held_seconds{{code="{code}",kind="{kind}",release="{name}"}}' in figures(site)
    await site.store.close()


async def test_a_release_that_has_ended_has_no_figures_of_what_holds_it(tmp_path, kit):
    site = await going(tmp_path, kit)
    await site.plane.act("shop-v2", "rollback", ANN)
    await kit.until(site, lambda w: w.releases["shop-v2"].ended)

    assert not [name for name in figures(site) if name.startswith("turnout_release_h")]
    assert site.plane.problems() == ()
    await site.store.close()
