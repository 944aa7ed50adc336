"""A thousand services with two thousand hosts on one Envoy: each is found, and a change is small."""

from __future__ import annotations

import re

import pytest

from controlplane.resources.names import group_name

pytestmark = [pytest.mark.envoy]

SERVICES = 1000
STATS = r"(lds|cds|rds\..*)\.update_success$"


def services(document):
    """Return the services: each has an exact host and a wildcard, and shares one host with all by path."""
    (endpoint,) = re.findall(r'v1: \{endpoints: \["(.*?)"\]', document)
    for number in range(SERVICES):
        routes = f"{{host: s{number}.example.com}}, {{host: '*.w{number}.example.org'}}"
        if number < 3:
            routes += f", {{host: one.example.net, path: /s{number}}}"
        yield (
            f"kind: Service\nname: s{number}\nfleets: [edge]\nroutes: [{routes}]\ninitial: v1\n"
            "user: {otherwise: baseline, from: [{header: x-user-id}]}\n"
            f"versions: {{v1: {{endpoints: ['{endpoint}']}}, v2: {{endpoints: ['{endpoint}']}}}}\n"
        )


def request(host, path="/"):
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\nx-user-id: a\r\n\r\n".encode()


async def test_every_host_leads_to_its_service_and_a_change_is_one_resource(site):
    fleet, service, *_ = site.world("edge")
    await site.serve()
    every = [fleet, *services(service)]
    files = {f"{i}.yaml": "---\n".join(every[i : i + 500]) for i in range(0, len(every), 500)}
    applied = await site.post("/v1/documents", files=files)
    assert applied["problems"] == []
    await site.start(edge_1=site.bootstrap("edge-1"))
    port = site.ports["edge"]
    expected = {
        ("s517.example.com", "/"): "s517",
        ("S999.EXAMPLE.COM", "/"): "s999",
        ("s0.example.com:8080", "/x"): "s0",
        ("any.w700.example.org", "/"): "s700",
        ("A.B.W3.example.org:1", "/"): "s3",
        ("one.example.net", "/s2/y"): "s2",
        ("One.Example.Net:99", "/s1"): "s1",
    }

    async def reached():
        found = await site.stats("edge-1", r"cluster\.s\d+~v1\.upstream_rq_total$")
        return {name.split(".")[1].partition("~")[0]: count for name, count in found.items() if count}

    for (host, path), name in expected.items():
        before = (await reached()).get(name, 0)
        await site.ask(port, [request(host, path)])
        assert (await reached())[name] == before + 1, (host, path)
    await site.synced()
    before = await site.stats("edge-1", STATS)
    await site.post("/v1/services/s500/switch", version="v2", reason="test")

    async def switched():
        return (await site.stats("edge-1", STATS)) != before

    await site.until(switched)
    after = await site.stats("edge-1", STATS)

    changed = {name.split(".update")[0]: after[name] - count for name, count in before.items()}
    group = group_name("s500", ["s500.example.com", "*.w500.example.org"])
    assert {name: more for name, more in changed.items() if more} == {f"http.http.rds.{group}": 1}
