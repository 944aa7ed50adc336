from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

import envoy
from controlplane.policy.latency import EDGES_MS
from controlplane.policy.stats import CLUSTER_STATS, REPORTS, REPORTS_KEY
from controlplane.resources.bootstrap import ADOPTED, REPORTED, Tls, bootstrap

BINARY = Path(envoy.__file__).parent / "_bin" / "envoy"


TWO = ["cp-0.test:18000", "[::1]:18001"]


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("planes", "options"),
    [
        (["127.0.0.1:18000"], {"flush": timedelta(milliseconds=500)}),
        (TWO, {"variant": "sotw"}),
        (TWO, {"admin": None, "fallback": ("0.0.0.0:8081", "shop.internal:8080")}),
        (TWO, {"adopt": {"public": "0.0.0.0:8080", "partners": "[::]:8443"}}),
        (TWO, {"tls": True}),
    ],
)
def test_envoy_accepts_it(tmp_path: Path, planes, options):
    if options.get("tls"):
        options = options | {"tls": made(tmp_path)}
    config = bootstrap("edge-1", "edge", planes, **options)
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(config))

    done = subprocess.run(
        [BINARY, "--mode", "validate", "-c", file], check=False, capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


def made(folder: Path) -> Tls:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-subj", "/CN=x", "-out", f"{folder}/tls.crt", "-keyout", f"{folder}/tls.key"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return Tls(f"{folder}/tls.crt", f"{folder}/tls.key", f"{folder}/tls.crt", "xds.test")


def test_of_adopted_listeners_only_clusters_with_a_segment_are_reported():
    config = bootstrap("a", "b", ["c:1"], adopt={"public": "127.0.0.1:8080"})

    assert "lds_config" not in config["dynamic_resources"]
    sent = [f"cluster.shop~1^0~beta.upstream_rq_{what}" for what in ("completed", "5xx", "429", "time")]
    kept = ["cluster.shop~v1.upstream_rq_5xx", "cluster.mine.upstream_rq_time", "http.x.downstream_rq_total"]
    assert [name for name in (*sent, *kept) if re.fullmatch(ADOPTED, name)] == sent


@pytest.mark.parametrize(("pattern", "cluster"), [(REPORTED, "shop~v2"), (ADOPTED, "shop~v2~beta")])
def test_counters_of_clusters_are_reported_as_the_node_says(pattern, cluster):
    assert bootstrap("a", "b", ["c:1"])["node"]["metadata"] == {REPORTS_KEY: REPORTS}
    names = [f"cluster.{cluster}.{stat}" for stat in CLUSTER_STATS]
    assert [name for name in names if not re.fullmatch(pattern, name)] == []


def test_it_names_the_proxy_to_both_ends():
    config = bootstrap("edge-1", "edge", ["127.0.0.1:18000"])

    assert config["node"] == {"id": "edge-1", "cluster": "edge", "metadata": {"turnout.reports": 2}}
    [sink] = config["stats_sinks"]
    [detector] = sink["typed_config"]["resource_detectors"]
    assert detector["typed_config"]["attributes"]["service.instance.id"] == "edge-1"


def test_only_what_decisions_need_is_reported():
    sent = [
        "turnout.rq.service.checkout.segment.beta.cluster.checkout~v2.class.ok",
        "turnout.t.service.checkout.segment.beta.cluster.checkout~v2",
        "http.http.downstream_rq_completed",
        "http.a.b.downstream_rq_active",
        "cluster.checkout~v2.membership_healthy",
        "cluster.checkout~v2.upstream_rq_total",
        "server.live",
    ]
    kept = [
        "cluster.checkout~v2.upstream_rq_200",
        "http.http.downstream_rq_2xx",
        "listener.a.turnout.x",
        "server.days",
    ]

    assert [name for name in (*sent, *kept) if re.fullmatch(REPORTED, name)] == sent


def test_latencies_have_the_edges_of_the_limits():
    [setting] = bootstrap("a", "b", ["c:1"])["stats_config"]["histogram_bucket_settings"]

    assert tuple(setting["buckets"]) == EDGES_MS
    regex = setting["match"]["safe_regex"]["regex"]
    assert re.fullmatch(regex, "turnout.t.service.a.segment.b.cluster.c")
    assert not re.fullmatch(regex, "turnout.total")


def test_with_tls_both_ends_are_checked():
    tls = Tls("/pki/client.pem", "/pki/client.key", "/pki/ca.pem", "xds.test")

    [cluster] = bootstrap("a", "b", ["c:1"], tls=tls)["static_resources"]["clusters"]

    context = cluster["transport_socket"]["typed_config"]
    assert context["sni"] == "xds.test"
    common = context["common_tls_context"]
    assert common["tls_certificates"][0]["private_key"] == {"filename": "/pki/client.key"}
    assert common["validation_context"]["match_typed_subject_alt_names"][0]["matcher"] == {
        "exact": "xds.test"
    }


def test_a_proxy_without_a_name_is_refused():
    with pytest.raises(ValueError, match="needs a node id"):
        bootstrap("", "edge", ["c:1"])


EXAMPLES = Path(__file__).parents[2] / "envoy"
TLS = Tls("/etc/turnout/tls.crt", "/etc/turnout/tls.key", "/etc/turnout/ca.crt", "turnout.example.com")


@pytest.mark.parametrize(
    ("file", "planes", "tls"),
    [
        ("bootstrap.yaml", ["127.0.0.1:18000"], None),
        ("bootstrap-mtls.yaml", ["turnout-0.example.com:18000", "turnout-1.example.com:18000"], TLS),
    ],
)
def test_the_examples_are_what_is_printed(file: str, planes: list[str], tls: Tls | None):
    assert yaml.safe_load((EXAMPLES / file).read_text()) == bootstrap("edge-1", "edge", planes, tls=tls)
