"""Resources as Envoy's documentation writes them, in YAML or JSON; their types may be without the prefix."""

from __future__ import annotations

from typing import Any

import yaml
from google.protobuf.message import Message

from controlplane.policy.overrides import parsed

_PREFIX = "type.googleapis.com/"
_TYPE = "@type"


def from_yaml(text: str) -> dict[str, dict[str, Message]]:
    """Return resources by type URL and name, given a list of them; each says in ``@type`` what it is.

    The text is the program's own: there is no limit on what it may cost to read.

    Raises:
        ValueError: If it is not such a list, Envoy has no such type or field, or a name is given twice; all
            mistakes are told.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {error}") from error
    if not isinstance(values, list):
        raise ValueError("is not a list of resources")
    found: dict[str, dict[str, Message]] = {}
    wrong = []
    for number, value in enumerate(values, 1):
        try:
            url, name, message = _resource(value)
            if name in found.setdefault(url, {}):
                raise ValueError(f"{name!r} is there twice")
            found[url][name] = message
        except ValueError as error:
            wrong.append(f"resource {number}: {error}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def _resource(value: object) -> tuple[str, str, Message]:
    whole = _prefixed(value)
    if not isinstance(whole, dict) or not isinstance(url := whole.pop(_TYPE, None), str):
        raise ValueError(f"has no {_TYPE}")
    message: Any = parsed(url.removeprefix(_PREFIX), whole)
    name = getattr(message, "cluster_name" if hasattr(message, "cluster_name") else "name", "")
    if not isinstance(name, str) or not name:
        raise ValueError("has no name")
    return url, name, message


def _prefixed(value: object) -> object:
    """Return a value with whole type URLs, wherever one stands."""
    if isinstance(value, list):
        return [_prefixed(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _prefixed(each) for key, each in value.items()}
    if isinstance(url := found.get(_TYPE), str) and "/" not in url:
        found[_TYPE] = _PREFIX + url
    return found
