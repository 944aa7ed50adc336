"""The words of a refusal say what to leave out first: what is good stays with the client meanwhile."""

from __future__ import annotations

import pytest

from controlplane.xds.culprits import blamed
from controlplane.xds.type_urls import CLUSTER, LISTENER, SCOPED_ROUTE

NAMES = "abcdefgh"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("Error adding/updating cluster(s) f: bad, c: no such", ["c", "f"]),
        ("Error adding/updating listener(s) f: error adding listener: 'f' has duplicate address", ["f"]),
        ("bad ['g']", ["g"]),
        ("a cluster is bad", []),
        ("half:bad", []),
    ],
)
def test_names_are_found_where_a_client_gives_them(words, names):
    assert blamed(NAMES, words) == names


def test_a_name_within_another_one_is_not_given():
    assert blamed(["shop~v1", "shop~v1~beta", "op~v1"], "shop~v1~beta: bad") == ["shop~v1~beta"]


@pytest.mark.parametrize("url", [CLUSTER, LISTENER, SCOPED_ROUTE])
def test_a_returning_client_keeps_what_is_good_while_the_culprit_is_sought(sotw, model, url):
    """The process that sent it what it has is gone: what that was is unknown, and absence deletes."""
    sotw.publish(5, (url, *map(model.resource, NAMES)))
    listed = sotw.ask(url, version_info="4.0123456789abcdef")
    for _ in range(20):
        bad = "f" in listed[-1]
        new = sotw.ack(url, error="Error adding/updating f: bad" if bad else "")
        if not new:
            break
        listed += new

    assert all(set(NAMES) - {"f"} <= set(names) for names in listed)
    assert set(sotw.view(url).nacks) == {"f"}
    assert set(sotw.view(url).acked) == set(NAMES) - {"f"}
    assert len(listed) == 3


def test_a_client_that_names_no_culprit_has_it_found_all_the_same(talk, model):
    talk.publish(1, (CLUSTER, *map(model.resource, NAMES)))
    listed = talk.ask(CLUSTER)
    for _ in range(30):
        new = talk.ack(CLUSTER, error="no" if "f" in listed[-1] else "")
        if not new:
            break
        listed += new

    assert set(talk.view(CLUSTER).nacks) == {"f"}
    assert set(talk.view(CLUSTER).acked) == set(NAMES) - {"f"}
