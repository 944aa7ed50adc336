"""What all documents are made of."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from controlplane.policy.fields import Name

EVERYONE = "everyone"  # the segment of a percentage step, in output and in statistics
ANONYMOUS = "anonymous"  # requests without identity: a group of their own everywhere
FOLLOWED = "followed"  # requests that another service of the group has decided
HOLD_OUT = "hold-out"  # the segment of a service's hold-out that has no name of its own
RESERVED_SEGMENTS = frozenset({EVERYONE, ANONYMOUS, FOLLOWED, HOLD_OUT})
UNCOMPARED = frozenset({ANONYMOUS, FOLLOWED})  # shown, but they enter no comparison of versions


def _not_reserved(name: str) -> str:
    if name in RESERVED_SEGMENTS:
        raise ValueError(f"{name!r} is reserved: it names a group of requests in statistics")
    return name


OwnName = Annotated[Name, AfterValidator(_not_reserved)]


class Model(BaseModel):
    """A part of a document: immutable, hashable, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    one_of: ClassVar[tuple[str, ...]] = ()  # exactly one of these fields is set
    instead: ClassVar[str] = ""  # what to do for several of them

    @model_validator(mode="after")
    def _has_exactly_one(self) -> Self:
        given = [field for field in self.one_of if getattr(self, field) is not None]
        if self.one_of and len(given) != 1:
            known = ", ".join(field.rstrip("_") for field in self.one_of)
            found = " and ".join(field.rstrip("_") for field in given) or "none"
            advice = f"; {self.instead}" if len(given) > 1 and self.instead else ""
            raise ValueError(f"has {found}; exactly one of {known} is needed{advice}")
        return self

    @property
    def given(self) -> str:
        """Which of ``one_of`` is set."""
        return next(field for field in self.one_of if getattr(self, field) is not None)


def only(fields: int) -> ConfigDict:
    """Tell editors how many fields a part has."""
    return ConfigDict(json_schema_extra={"minProperties": fields, "maxProperties": fields})
