from __future__ import annotations

from pathlib import Path

from controlplane.policy.capabilities import KINDS, LIMITS, table
from controlplane.policy.documents import Listener

PAGE = Path(__file__).parents[2] / "docs" / "envoy.md"
BEGIN, END = "<!-- capabilities -->\n", "\n<!-- /capabilities -->"


def test_the_table_of_capabilities_is_as_the_code_says(request):
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END.lstrip("\n"))
    expected = f"{head}{BEGIN}{table()}{END}{tail}"
    if request.config.getoption("--update-golden", default=False):
        PAGE.write_text(expected)

    assert PAGE.read_text() == expected


def test_every_kind_of_listener_is_in_the_table():
    kinds = Listener.model_json_schema()["properties"]["kind"]["enum"]

    assert tuple(kinds) == KINDS == tuple(LIMITS)
