"""Which hosts share a route configuration, and how a proxy finds it from a request's host.

Scoped routes compare exactly and have no default, so early header mutation computes the scope: each formatted
value overwrites the header or, being empty, leaves it. Exact hosts are found by bisection, so their number
hardly matters. Expressions cannot fold case: a host with capitals goes down a second tree, of small regular
expressions, because those in expressions are limited to 100 instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from os.path import commonprefix

from controlplane.resources.names import SCOPE_NONE, group_name

VALUE_LIMIT = 16_384  # bytes of a formatted header value that Envoy accepts
_SAFE_LIMIT = VALUE_LIMIT - 384
_DEPTH_LIMIT = 24  # of conditions inside one another; Envoy's parser of expressions ends at 29
_REGEX_LIMIT = 80  # characters of a host in one regex, at an instruction each
_SKIP_LIMIT = 50  # characters before the one that is looked at

_NO_BRACKETS = re.compile("[^()]+")
_UNFOLDED = str.maketrans({".": "[.]", "k": "(?-i:[Kk])", "s": "(?-i:[Ss])"})

Entry = tuple[str, str]  # host, scope
Entries = Sequence[Entry]


def groups(hosts: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Return services by group, given the hosts of each service: those that share a host, directly or not.

    Members are sorted. Other hosts are another group, with another name.
    """
    parent = {service: service for service in hosts}

    def root(service: str) -> str:
        while parent[service] != service:
            parent[service] = service = parent[parent[service]]
        return service

    owner: dict[str, str] = {}
    for service in sorted(hosts):
        for host in hosts[service]:
            first, second = sorted((root(owner.setdefault(host, service)), root(service)))
            parent[second] = first
    found: dict[str, list[str]] = {}
    for service in sorted(hosts):
        found.setdefault(root(service), []).append(service)
    return {
        group_name(first, {host for member in members for host in hosts[member]}): tuple(members)
        for first, members in sorted(found.items())
    }


def scope_values(scopes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values that are to overwrite the scope header, in order, given the scope of each host.

    Exact hosts win over wildcards, longer wildcards over shorter ones, and ``*`` takes the rest; capitals
    make no difference, except in hosts of more than 160 characters and wildcards of more than 80. Envoy has
    taken the port off before.
    """
    exact = sorted((host, scope) for host, scope in scopes.items() if not host.startswith("*"))
    wild = sorted(
        ((host, scope) for host, scope in scopes.items() if host.startswith("*.")),
        key=lambda entry: (len(entry[0]), entry[0]),
    )
    folded = [entry for entry in exact if len(entry[0]) <= 2 * _REGEX_LIMIT]
    rest = scopes.get("*", SCOPE_NONE)
    return (rest, *_parts(wild, _wildcards), *_parts(exact, _bounded_tree), *_parts(folded, _capitals))


def _parts(entries: Entries, written: Callable[[Entries], str]) -> Iterator[str]:
    """Cut ``entries`` so that each part, once written, fits in a value and is not too deep; return those."""
    if not entries:
        return
    # Thousands need not be written to see that they do not fit.
    small = sum(len(host) + len(scope) for host, scope in entries) <= _SAFE_LIMIT
    text = written(entries) if small or len(entries) == 1 else ""
    if len(entries) == 1 or (small and len(text) <= _SAFE_LIMIT and _depth(text) <= _DEPTH_LIMIT):
        yield f"%CEL({text})%"
        return
    middle = len(entries) // 2
    yield from _parts(entries[:middle], written)
    yield from _parts(entries[middle:], written)


def _depth(expression: str) -> int:
    return max(accumulate(1 if char == "(" else -1 for char in _NO_BRACKETS.sub("", expression)), default=0)


def _wildcards(entries: Entries) -> str:
    """Return a chain that tries the last, which is the longest, first."""
    text = "''"
    for host, scope in entries:
        suffix = host[1:]
        if len(suffix) <= _REGEX_LIMIT:
            test = f"request.host.matches('(?i)^.+{_literal(suffix)}$')"
        else:
            test = f"request.host.endsWith('{suffix}')"
        text = f"{test} ? '{scope}' : ({text})"
    return text


def _capitals(entries: Entries) -> str:
    return f"request.host.matches('[A-Z]') ? ({_folded_tree(entries)}) : ''"


def _folded_tree(entries: Entries) -> str:
    """Return a tree that looks, whatever the case, at the first character in which the hosts differ."""
    if len(entries) == 1:
        host, scope = entries[0]
        return f"{_folded(host)} ? '{scope}' : ''"
    at = len(commonprefix([host for host, _ in entries]))  # noqa: RUF071 - hosts, not paths
    if at > _SKIP_LIMIT:
        return f"{_folded(entries[0][0])} ? '{entries[0][1]}' : ({_folded_tree(entries[1:])})"
    changes = [i for i in range(1, len(entries)) if entries[i][0][at] != entries[i - 1][0][at : at + 1]]
    cut = min(changes, key=lambda i: abs(2 * i - len(entries)))
    chars = dict.fromkeys(host[at : at + 1] for host, _ in entries[:cut])
    options = "|".join(_literal(char) or "$" for char in chars)
    test = f"request.host.matches('^[ -~]{{{at}}}(?i:{options})')"
    return f"{test} ? ({_folded_tree(entries[:cut])}) : ({_folded_tree(entries[cut:])})"


def _folded(host: str) -> str:
    if len(host) <= _REGEX_LIMIT:
        return f"request.host.matches('(?i)^{_literal(host)}$')"
    first, last = _literal(host[:_REGEX_LIMIT]), _literal(host[-_REGEX_LIMIT:])
    ends = f"request.host.matches('(?i)^{first}') && request.host.matches('(?i){last}$')"
    return f"{ends} && request.host.size() == {len(host)}"


def _literal(host: str) -> str:
    """Return a pattern for the host; ``(?i)`` alone makes of k and s three letters of several bytes."""
    return host.translate(_UNFOLDED)


def _bounded_tree(entries: Entries) -> str:
    if len(entries) == 1:
        return _tree(entries)
    first, last = entries[0][0], entries[-1][0]
    return f"request.host >= '{first}' && request.host <= '{last}' ? ({_tree(entries)}) : ''"


def _tree(entries: Entries) -> str:
    if len(entries) == 1:
        host, scope = entries[0]
        return f"request.host == '{host}' ? '{scope}' : ''"
    middle = len(entries) // 2
    return (
        f"request.host < '{entries[middle][0]}' ? ({_tree(entries[:middle])}) : ({_tree(entries[middle:])})"
    )
