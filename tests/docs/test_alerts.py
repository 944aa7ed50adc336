"""The rules for Prometheus name figures and values that there are, and the page explains them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from controlplane.app.metrics import Metrics
from controlplane.app.showing import State
from controlplane.release.holding import Kind
from controlplane.release.state import Halt
from controlplane.web.asked import Act, Order
from tests.app import site as sites

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "alerts.yaml"
PAGE = (ROOT / "docs" / "operating.md").read_text()
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
VALUES = {"halt": get_args(Halt), "kind": get_args(Kind), "state": get_args(State), "code": ("frozen",)}


async def test_every_figure_of_a_rule_is_served_with_the_labels_that_it_chooses_by(tmp_path):
    site = await sites.start(tmp_path)
    site.publisher.publish(await site.store.world())
    await site.plane.order(Order(service="shop", to="v2", policy="quick", actor="ann"))
    await sites.tick(site, 3)
    await site.plane.act("shop-v2", "pause", Act(actor="ann"))
    registry = CollectorRegistry()
    registry.register(Metrics(site.plane))
    text = generate_latest(registry).decode()
    await site.store.close()

    for rule in ALERTS:
        for name, chosen in re.findall(r"(turnout_\w+)(?:\{(.*?)\})?", rule["expr"]):
            assert f"# TYPE {name} gauge" in text
            for label, values in re.findall(r'(\w+)[=!~]+"(.*?)"', chosen):
                assert set(values.split("|")) <= set(VALUES[label])
                assert (
                    name == "turnout_proxies"
                    or f"{label}=" in text.partition(f"\n{name}{{")[2].partition("\n")[0]
                )


def test_the_page_has_the_rules_and_says_what_each_means():
    assert f"```yaml\n{RULES.read_text()}```" in PAGE
    assert re.findall(r"^\| `(Turnout\w+)` \|", PAGE, re.M) == [r["alert"] for r in ALERTS]


def test_every_rule_says_who_is_to_be_woken():
    assert {rule["labels"]["severity"] for rule in ALERTS} == {"page", "ticket"}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool; Debian's package prometheus has it"
)
def test_prometheus_takes_them():
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
