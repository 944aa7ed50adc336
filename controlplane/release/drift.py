"""What an order's documents say now that a release, which keeps what it was started with, does not do."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.policy.documents import Release
from controlplane.policy.pinned import PinnedPolicy, PinnedStep
from controlplane.release.state import Phase, ReleaseState

PASSED = "its point of no return stays known under this name: give the order another"
NEEDS_NAME = "an order of another service needs a name of its own"


def of_order(state: ReleaseState, document: Release | None) -> tuple[str, ...]:
    """Return how its document differs from a release, and what takes the document's order.

    Args:
        state: The release; one that has ended stands for its order, which is done.
        document: Its order, if there is one.
    """
    if document is None:
        if state.document is None or state.ended:
            return ()
        back = f"`turnout rollback {state.name}` takes it back"
        return (f"its order was removed; the release goes on, and {back}",)
    found = edits(state, document)
    if not found:
        return ()
    says = ", ".join(f"{name}: {now}" for name, now, _ in found)
    kept = ", ".join(was for *_, was in found)
    does = "has ended" if state.ended else "goes on"
    return (f"the document now says {says}; the release {does} with {kept}; {_how(state, document)}",)


def edits(state: ReleaseState, document: Release) -> tuple[tuple[str, str, str], ...]:
    """Return each field in which a document orders something else, what it says, and what the release has."""
    taken = state.document or document
    after, waited = (", ".join(f"{a.release} {a.reached}" for a in x.after) for x in (document, state))
    fields = (
        ("service", document.service, state.service),
        ("from", document.from_, state.from_version),
        ("to", document.to, state.to_version),
        ("policy", document.policy, state.policy.name),
        ("after", after, waited),
        ("group", document.group or "", state.group),
        ("supersedes", document.supersedes or "", state.supersedes),
        ("reason", document.reason or "", taken.reason or ""),
        # Retries count attempts up, so a lower one is no edit.
        ("attempt", str(max(document.attempt, state.attempt)), str(state.attempt)),
        ("start", document.start, taken.start),
    )
    return tuple((name, now or "none", kept or "none") for name, now, kept in fields if now != kept)


def done(state: ReleaseState) -> str:
    """Say that an order has run, and what runs it again."""
    again = f"`attempt: {state.attempt + 1}` or `turnout retry {state.name}`"
    return f"attempt {state.attempt} has run ({state.phase}); {again} runs it again"


def _how(state: ReleaseState, document: Release) -> str:
    if document.service != state.service:
        return NEEDS_NAME
    if state.phase is Phase.PROMOTED and state.passed is not None:
        return PASSED
    takes = f"`turnout retry {state.name}` takes the order"
    if state.phase is Phase.PROMOTED and document.to == state.to_version:
        return f"{takes} once {state.to_version} is not stable any more"
    if state.ended:
        return takes
    if state.active:
        return f"{takes} once this one has ended"
    return f"`turnout rollback {state.name}` and then {takes}"


PINNED = "the release goes on with what was pinned"
OF_SERVICE = ("hold_out", "metrics", "user")  # pinned with the policy, written in the service


def of_policy(kept: PinnedPolicy, now: PinnedPolicy) -> Iterator[str]:
    """Yield what of a policy, its segments and its service is not as a release has pinned it."""
    if kept.user is None:  # a store of before it was kept: as the document has it
        kept = kept.model_copy(update={"user": now.user})
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
