"""What Release documents that know one another must agree on: no cycles, and lockstep in a group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from controlplane.policy.documents import Document, Key, Match, Policy, Release, Segment, Service, Step
from controlplane.policy.problems import Finding

Find = Callable[[str, str], Document | None]


def findings(release: Document, everyone: Mapping[Key, Document]) -> Iterator[Finding]:
    """Yield what is wrong with a release among the others.

    Args:
        release: The document; other kinds have no findings.
        everyone: All documents that would be in force.
    """
    if not isinstance(release, Release):
        return

    def find(kind: str, name: str) -> Document | None:
        return everyone.get((kind, name))

    if (cycle := _cycle(release, find)) is not None:
        yield Finding(("after",), f"depends on itself: {' -> '.join(cycle)}")
    if release.supersedes == release.name:
        yield Finding(("supersedes",), "names the release itself")
    if release.group is None:
        return
    yield from _alone(release, find)
    for _, other in sorted(everyone.items()):
        if isinstance(other, Release) and other.group == release.group and other.name < release.name:
            for field, text in _unlike(release, other, find):
                yield Finding((field,), f"{text}; all of group {release.group!r} go step by step together")


def _cycle(release: Release, find: Find) -> list[str] | None:
    """Return the names of a cycle through a release, the release first and last."""
    trails = [[release.name]]
    seen: set[str] = set()
    while trails:
        trail = trails.pop()
        here = release if len(trail) == 1 else find("Release", trail[-1])
        for after in here.after if isinstance(here, Release) else ():
            if after.release == release.name:
                return [*trail, release.name]
            if after.release not in seen:
                seen.add(after.release)
                trails.append([*trail, after.release])
    return None


def _alone(release: Release, find: Find) -> Iterator[Finding]:
    """Yield what a policy may not have in a group."""
    policy = find("Policy", release.policy)
    if not isinstance(policy, Policy):
        return
    if policy.ends is not None:
        text = f"policy {policy.name!r} is an A/B test (`ends`); a group goes on or back as a whole"
        yield Finding(("policy",), text)
    rules = [policy.on_failure, *(step.on_failure for step in policy.steps if step.on_failure)]
    if any(rule.do == "step_back" for rule in rules):
        text = f"policy {policy.name!r} may go a step back; a group goes back as a whole"
        yield Finding(("policy",), text)
    elif any(rule.retry for rule in rules):
        text = f"policy {policy.name!r} retries by itself; a group is retried by hand, as a whole"
        yield Finding(("policy",), text)


def _unlike(release: Release, other: Release, find: Find) -> Iterator[tuple[str, str]]:
    """Yield in what two releases of a group differ that would move different users, and where it is said."""
    if release.service == other.service:
        yield "service", f"{release.service!r} is released by {other.name!r} too"
    if release.attempt != other.attempt:
        yield "attempt", f"is {release.attempt}, that of {other.name!r} {other.attempt}"
    mine, theirs = find("Policy", release.policy), find("Policy", other.policy)
    if isinstance(mine, Policy) and isinstance(theirs, Policy):
        if [_shares(s, find) for s in mine.steps] != [_shares(s, find) for s in theirs.steps]:
            yield "policy", f"{mine.name!r} has other steps than {theirs.name!r} of {other.name!r}"
        elif mine.guard.hold_back != theirs.guard.hold_back:
            yield "policy", f"{mine.name!r} has another hold_back than {theirs.name!r} of {other.name!r}"
    here, there = find("Service", release.service), find("Service", other.service)
    if isinstance(here, Service) and isinstance(there, Service) and here.user.from_ != there.user.from_:
        yield "group", f"{here.name!r} has other user.from than {there.name!r} of {other.name!r}"


def _shares(step: Step, find: Find) -> tuple[object, ...]:
    """Return what decides which users a step moves."""
    excluded = frozenset(_match(name, find) for name in step.exclude)
    return _match(step.segment, find), step.share, step.everyone, excluded


def _match(segment: str | Match | None, find: Find) -> object:
    document = find("Segment", segment) if isinstance(segment, str) else None
    return document.match if isinstance(document, Segment) else segment
