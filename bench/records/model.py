"""The base of everything that is stored, the types of its numbers, and how a document is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from mnist_cnn.disk import decode
from mnist_cnn.errors import parsing_reason

LARGEST_INTEGER = 2**64
"""Above every number of bytes; seeds are below it too."""
LARGEST_NUMBER = 1e39
"""Above every float32, such as a loss; its square is still a number."""
LONGEST_SECONDS = 1e9
"""Longest time of a span: thirty years."""
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True, ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
"""A whole number; true, 1.0 and "1" are none."""
Number = Annotated[float, Field(strict=True, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
"""A number; true and "1" are none."""


def in_utc(at: datetime) -> datetime:
    """The same moment in UTC; without a time zone, UTC is what is meant."""
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _in_a_year_of_utc(at: datetime) -> datetime:
    try:
        in_utc(at)
    except OverflowError:
        raise ValueError("it is in no year that UTC has") from None
    return at


Moment = Annotated[datetime, AfterValidator(_in_a_year_of_utc)]
"""A date and time, which `in_utc` makes comparable with others."""
Seconds = Annotated[float, Field(strict=True, ge=0, le=LONGEST_SECONDS)]
Count = Annotated[Whole, Field(ge=0)]
Difference = Annotated[Number, Field(ge=0)]
"""A difference as a share of the value that it is measured against."""


class Model(BaseModel):
    """Frozen, strict about unknown fields, and without NaN: every document is valid JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def check_bounds(name: str, value: JsonValue) -> None:
    """Refuse a number that no field of a model could hold.

    Raises:
        ValueError: it is too large, or not a number at all.
    """
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError(f"{name} is too large")
    if isinstance(value, float) and not abs(value) <= LARGEST_NUMBER:
        raise ValueError(f"{name} is too large")


Document = TypeVar("Document", bound=Model)


def parse_document(kind: type[Document], content: bytes) -> Document:
    """The document that a file of JSON holds.

    Raises:
        ValueError: it holds none; where it is JSON, this is pydantic's `ValidationError`.
    """
    return kind.model_validate(parse_json(content))


def parse_json(content: bytes) -> object:
    """The value that JSON stands for; no key may be there twice, as only one of them would count.

    Raises:
        ValueError: it is no such text; the message says where it is wrong.
    """
    try:
        text = decode(content)
    except ValueError as error:
        raise ValueError(f"Invalid JSON: {error}") from None
    try:
        value = json.loads(text, object_pairs_hook=_object)
        is_text = _ESCAPED_SURROGATE.search(text) is None or _is_text(value)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Invalid JSON: {error.msg.removesuffix(' at')} at line {error.lineno} column "
            f"{error.colno}"
        ) from None
    except RecursionError:
        raise ValueError("Invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"Invalid JSON: {parsing_reason(error)}") from None
    if not is_text:
        raise ValueError("Invalid JSON: a text has half a character in it (a lone surrogate)")
    return value


def _is_text(value: object) -> bool:
    """Whether every text in the value can be written: JSON can escape halves of characters."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return values
