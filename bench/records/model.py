"""The base of everything that is stored, and the types of its numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Difference = Annotated[float, Field(ge=0)]
"""A difference as a share of the value that it is measured against."""


class Model(BaseModel):
    """Frozen, strict about unknown fields, and without NaN: every document is valid JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
