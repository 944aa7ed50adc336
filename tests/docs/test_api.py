"""The page on the HTTP API must name each path that there is, with its fields, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from controlplane.app.actions import ACTIONS
from controlplane.web import asked
from controlplane.web.api import Api

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
ROUTES = Api(None, CollectorRegistry()).app.routes
ROWS = {line.split("|")[1]: line for line in PAGE.splitlines() if line.startswith("| `")}
BODIES = {
    "/v1/services/{name}/switch": asked.Switch,
    "/v1/services/{name}/metrics/{metric}": asked.Push,
    "/v1/undo/{name}": asked.Act,
    "/v1/adopt": asked.Adopt,
    "/v1/releases": asked.Order,
    "/v1/releases/{name}/{action}": asked.Act,
    "/v1/releases/{name}/cohort": asked.CohortAsked,
    "/v1/explain": asked.Asked,
    "/v1/blackouts": asked.Declare,
    "/v1/blackouts/{id}/end": asked.Who,
    "/v1/documents": asked.Documents,
    "/v1/proxies/resend": asked.Resend,
}
ELSEWHERE = {"actor", "reason"}


def test_every_path_is_named_and_no_other():
    named = {path for head in ROWS for path in re.findall(r"`(?:GET|POST) ([^`]+)`", head)}

    assert named == {route.path for route in ROUTES}


@pytest.mark.parametrize("route", [r for r in ROUTES if "POST" in r.methods], ids=lambda r: r.path)
def test_every_field_of_a_body_is_named(route):
    row = next(line for head, line in ROWS.items() if f"`POST {route.path}`" in head)
    body = row.split("|")[3]
    fields = {field.alias or name for name, field in BODIES[route.path].model_fields.items()} - ELSEWHERE
    if route.path == "/v1/undo/{name}":
        fields -= {"step"}  # that of an approval

    assert {name for name in fields if f"`{name}`" not in body} == set()


def test_every_action_is_named():
    row = next(line for head, line in ROWS.items() if "{action}" in head)

    assert {action for action in (*ACTIONS, "advance") if f"`{action}`" not in row} == set()
