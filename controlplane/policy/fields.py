"""The types of single fields of documents: how each is read, checked, written, and shown in the schema."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from controlplane.policy.grpc_codes import CODES
from controlplane.policy.nodes import parse_metadata
from controlplane.policy.patterns import MAX_PATTERN, check_inner_pattern, check_pattern
from controlplane.policy.values import (
    DURATION_PATTERN,
    MAX_WORD,
    NAME_PATTERN,
    PPM,
    SHARE_PATTERN,
    check_grpc_code,
    check_identity,
    check_stat,
    check_url_word,
    check_word,
    format_duration,
    format_share,
    parse_address,
    parse_amount,
    parse_duration,
    parse_host,
    parse_ip_address,
    parse_limit,
    parse_network,
    parse_one_host,
    parse_share,
    parse_url,
)

HEADER_PATTERN = r"^[a-z0-9-]+$"
COOKIE_PATTERN = r"^[A-Za-z0-9_.-]+$"
METHOD_PATTERN = r"^[A-Z]+(-[A-Z]+)*$"
USERS_FILE_PATTERN = r"^([A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*[.]txt$"
CLAIM_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
QUERY_PATTERN = r"^[A-Za-z0-9_.~-]+$"
PATH_PATTERN = r"^/[^\s?#]*$"
FILE_PATTERN = r"^(/[^/\x00-\x1f]+)+$"

_TAKEN = frozenset(
    {
        "accept",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
    }
)
_DURATION = Annotated[str, Field(pattern=DURATION_PATTERN)]
_SHARE = Annotated[str, Field(pattern=SHARE_PATTERN)]


def _above_zero(share: int) -> int:
    if share == 0:
        raise ValueError("0% gives nobody the new version; a step's share is 0.01% to 100%")
    return share


def _some(share: int) -> int:
    if share == 0:
        raise ValueError("0% cannot be shown by counting; write a share of at least 0.01%")
    return share


def _below_all(share: int) -> int:
    if share == PPM:
        raise ValueError("100% leaves nobody for the new version; a hold-back is below 100%")
    return share


def _readable_header(name: str) -> str:
    if name == "cookie":
        raise ValueError("the cookie header is read by 'cookie', name by name")
    if name == "host":
        raise ValueError("Envoy keeps no 'host' header; the condition 'host' looks at it")
    if name.startswith("x-turnout-"):
        raise ValueError("'x-turnout-' headers are set by Turnout itself")
    return name


def _tellable_header(name: str) -> str:
    if name.startswith("x-turnout-") and name != "x-turnout-version":
        raise ValueError(
            f"{name!r} is Turnout's own; of 'x-turnout-' headers only 'x-turnout-version' is free"
        )
    if name in _TAKEN:
        raise ValueError(f"{name!r} has a meaning of its own in HTTP; take one such as 'x-turnout-version'")
    return name


Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=_DURATION),
    PlainSerializer(format_duration, return_type=str),
]
Limit = Annotated[
    timedelta,
    BeforeValidator(parse_limit, json_schema_input_type=_DURATION),
    PlainSerializer(format_duration, return_type=str),
]
Share = Annotated[
    int,
    BeforeValidator(parse_share, json_schema_input_type=_SHARE),
    PlainSerializer(format_share, return_type=str),
]
Url = Annotated[str, BeforeValidator(parse_url)]
Amount = Annotated[float, BeforeValidator(parse_amount, json_schema_input_type=float | _SHARE)]
StatName = Annotated[str, AfterValidator(check_stat)]
GrpcCode = Annotated[str, Field(json_schema_extra={"enum": list(CODES)}), AfterValidator(check_grpc_code)]
StepShare = Annotated[Share, AfterValidator(_above_zero)]
SomeShare = Annotated[Share, AfterValidator(_some)]
HoldBack = Annotated[Share, AfterValidator(_below_all)]
NodeMetadata = Annotated[dict[str, Any], BeforeValidator(parse_metadata)]
Address = Annotated[str, BeforeValidator(parse_address)]
IpAddress = Annotated[str, BeforeValidator(parse_ip_address)]
Host = Annotated[str, BeforeValidator(parse_host)]
HeaderName = Annotated[str, Field(pattern=HEADER_PATTERN, max_length=128), AfterValidator(_readable_header)]
CookieName = Annotated[str, Field(pattern=COOKIE_PATTERN, max_length=128)]
ToldHeader = Annotated[str, Field(pattern=HEADER_PATTERN, max_length=128), AfterValidator(_tellable_header)]
PathPrefix = Annotated[str, Field(pattern=PATH_PATTERN, max_length=1024)]
FilePath = Annotated[str, Field(pattern=FILE_PATTERN, max_length=1024)]
Word = Annotated[str, Field(json_schema_extra={"maxLength": MAX_WORD}), AfterValidator(check_word)]
Pattern = Annotated[str, Field(json_schema_extra={"maxLength": MAX_PATTERN}), AfterValidator(check_pattern)]
InnerPattern = Annotated[
    str, Field(json_schema_extra={"maxLength": MAX_PATTERN}), AfterValidator(check_inner_pattern)
]
UrlWord = Annotated[str, Field(json_schema_extra={"maxLength": MAX_WORD}), AfterValidator(check_url_word)]
ClaimName = Annotated[str, Field(pattern=CLAIM_PATTERN, max_length=64)]
Identity = Annotated[str, AfterValidator(check_identity)]
UsersFile = Annotated[str, Field(pattern=USERS_FILE_PATTERN, max_length=256)]
QueryName = Annotated[str, Field(pattern=QUERY_PATTERN, max_length=128)]
Method = Annotated[str, Field(pattern=METHOD_PATTERN, max_length=32)]
OneHost = Annotated[str, BeforeValidator(parse_one_host)]
Network = Annotated[str, BeforeValidator(parse_network)]
