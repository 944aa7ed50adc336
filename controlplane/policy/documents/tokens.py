"""Tokens that the proxies of a fleet verify, and what of them conditions may look at."""

from __future__ import annotations

import json
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controlplane.policy.documents.model import Model
from controlplane.policy.fields import ClaimName, FilePath, HeaderName

_WORD = Annotated[str, Field(min_length=1, max_length=512)]
MAX_KEYS = 65_536  # bytes of a key set written in place


def _key_set(text: str) -> str:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}; write the key set, or give a file as jwks_file") from error
    if len(text) > MAX_KEYS or not isinstance(plain, dict) or not isinstance(plain.get("keys"), list):
        raise ValueError(f'is not a key set of at most {MAX_KEYS} bytes: {{"keys": [...]}}')
    return text


class Tokens(Model):
    """JSON Web Tokens of one issuer; only what such a token says, verified, is a claim."""

    issuer: _WORD
    audiences: tuple[_WORD, ...] = ()
    jwks_file: FilePath | None = None
    jwks: Annotated[str, AfterValidator(_key_set)] | None = None
    header: HeaderName = "authorization"
    claims: Annotated[tuple[ClaimName, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if (self.jwks is None) is (self.jwks_file is None):
            given = "both" if self.jwks else "none"
            raise ValueError(f"has {given} of jwks_file and jwks; exactly one is needed")
        if len(set(self.claims)) < len(self.claims):
            raise ValueError("claims has a name twice")
        return self
