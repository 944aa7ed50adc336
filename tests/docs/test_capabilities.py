"""What the docs say of kinds of listeners and of versions is what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.policy import capabilities, envoy_versions
from controlplane.policy.capabilities import KINDS, LIMITS
from controlplane.policy.documents import Listener

PAGE = Path(__file__).parents[2] / "docs" / "envoy.md"
TABLES = {"capabilities": capabilities.table, "versions": envoy_versions.table}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_as_the_code_says(name, request):
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = PAGE.read_text().partition(begin)
    expected = f"{head}{begin}{TABLES[name]()}\n{end}{rest.partition(end)[2]}"
    if request.config.getoption("--update-golden", default=False):
        PAGE.write_text(expected)

    assert PAGE.read_text() == expected


def test_every_kind_of_listener_is_in_the_tables():
    kinds = Listener.model_json_schema()["properties"]["kind"]["enum"]

    assert tuple(kinds) == KINDS == tuple(LIMITS) == tuple(envoy_versions.NEEDS)
