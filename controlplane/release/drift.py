"""What an order's documents say now that a release, which keeps what it was started with, does not do."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.policy.documents import Release
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.release.state import Phase, ReleaseState


def drift(state: ReleaseState, document: Release | None, policy: PinnedPolicy | None) -> tuple[str, ...]:
    """Return how the documents differ from a release that has started; nothing of it ever acts.

    Args:
        state: The release. While it waits edits still reach it, and when it has ended they mean nothing.
        document: Its order, if there is one.
        policy: What its policy would be pinned to now; None if it is not known any more.
    """
    if state.phase is Phase.WAITING or state.ended:
        return ()
    return (*_of_order(state, document), *_of_policy(state.policy, policy))


def _of_order(state: ReleaseState, document: Release | None) -> Iterator[str]:
    if document is None:
        return
    fields = (
        ("service", document.service, state.service),
        ("from", document.from_, state.from_version),
        ("to", document.to, state.to_version),
        ("policy", document.policy, state.policy.name),
        # Retries count attempts up, so a lower one is no edit.
        ("attempt", max(document.attempt, state.attempt), state.attempt),
    )
    edited = [(name, now, kept) for name, now, kept in fields if now != kept]
    if edited:
        says = ", ".join(f"{name}: {now}" for name, now, _ in edited)
        goes_on = ", ".join(str(kept) for *_, kept in edited)
        yield f"the document now says {says}; the release goes on with {goes_on}"


PINNED = "the release goes on with what was pinned"
OF_SERVICE = ("hold_out", "metrics")  # pinned with the policy, written in the service


def _of_policy(kept: PinnedPolicy, now: PinnedPolicy | None) -> Iterator[str]:
    if now is None:
        yield f"policy {kept.name!r} is not there any more; {PINNED}"
        return
    changed = [name for name in PinnedPolicy.model_fields if getattr(kept, name) != getattr(now, name)]
    segments = _segments(kept, now) if "steps" in changed else ()
    if segments:
        changed.remove("steps")
        yield f"segment {', '.join(map(repr, segments))} was edited; {PINNED}"
    for whose, fields in (
        (f"policy {kept.name!r}", [name for name in changed if name not in OF_SERVICE]),
        ("the service", [name for name in changed if name in OF_SERVICE]),
    ):
        if fields:
            yield f"{whose} was edited ({', '.join(fields)}); {PINNED}"


def _segments(kept: PinnedPolicy, now: PinnedPolicy) -> tuple[str, ...]:
    """Return the segments that say something else, if nothing else of the steps does."""
    if [_bare(step) for step in kept.steps] != [_bare(step) for step in now.steps]:
        return ()
    pairs = [
        ((old.segment, old.match), (new.segment, new.match))
        for old, new in zip(kept.steps, now.steps, strict=True)
    ]
    pairs += [
        ((old.name, old.match), (new.name, new.match))
        for before, after in zip(kept.steps, now.steps, strict=True)
        for old, new in zip(before.exclude, after.exclude, strict=True)
    ]
    return tuple(dict.fromkeys(name for (name, old), (_, new) in pairs if old != new))


def _bare(step: PinnedStep) -> PinnedStep:
    """Return a step with the names of its segments, but not what they match."""
    everyone = [excluded.model_copy(update={"match": None}) for excluded in step.exclude]
    return step.model_copy(update={"match": None, "exclude": tuple(everyone)})
