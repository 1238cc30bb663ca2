"""Numbers as a page shows them, and whether a recomputed value rounds to one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

_FACTORS = {
    "%": 100,
    "point": 100,
    "points": 100,
    "ms": 1e3,
    "us": 1e6,
    "µs": 1e6,
    "s": 1,
    "second": 1,
    "seconds": 1,
    "min": 1 / 60,
    "minute": 1 / 60,
    "minutes": 1 / 60,
}
"""What a value of a record is multiplied by to have the unit."""
_NUMBER = re.compile(
    r"(?<![\w.,:])(?<![A-Za-z]-)(?P<number>(?:(?<![^\s(|])[-+])?(?>\d{1,3}(?:,\d{3})+|\d+)(?>\.\d+)?"
    r"(?>e[-+]?\d+)?)(?![\w]|[.,:]\d)"
    rf"(?:[*_]*\s*(?P<unit>{'|'.join(sorted(_FACTORS, key=len, reverse=True))})(?!\w))?"
)
_NO_NUMBERS = re.compile(
    r"<!--(?:.*?-->|.*)|`[^`]*`|\]\((?:(?!\]\()[^)])*\)|https?://\S+|\b\d{4}-\d\d-\d\d\b",
    re.DOTALL,
)
"""Comments, code, links' targets and dates. What is not closed ends a search, or a text of many
beginnings would take quadratic time."""
_HALF = Decimal("0.5000001")
"""Half of the last digit, and a little: a float is seldom exactly the decimal it stands for."""


class End(StrEnum):
    """Which end of an interval a value is: it may be rounded outwards, as in tables."""

    NONE = "none"
    LOWER = "lower"
    UPPER = "upper"


@dataclass(frozen=True, slots=True)
class ShownNumber:
    """A number in a page's text."""

    text: str
    """The number as it is written, without its unit."""
    unit: str | None
    """The unit written after it; None where there is none."""
    offset: int
    """Where in the text it begins."""

    def agrees(self, value: float, unit: str | None, end: End = End.NONE) -> bool:
        """Whether a value rounds to the digits that are shown.

        Args:
            value: in the unit of records: a fraction, seconds, a count.
            unit: the unit that is shown; None where none is.
            end: which end of an interval the value is.
        """
        try:
            shown = Decimal(self.text.replace(",", ""))
            exponent = shown.as_tuple().exponent
            assert isinstance(exponent, int)  # the text is digits
            difference = (Decimal(in_unit(value, unit)) - shown).scaleb(-exponent)
        except ArithmeticError:  # an exponent of many digits
            return False
        if end is End.LOWER:
            return -_HALF <= difference < 1
        if end is End.UPPER:
            return -1 < difference <= _HALF
        return abs(difference) <= _HALF


def in_unit(value: float, unit: str | None) -> float:
    """A value of records in a unit that a page shows; itself where it shows none."""
    return value if unit is None else value * _FACTORS[unit]


def find_numbers(text: str) -> Iterator[ShownNumber]:
    """The numbers of a Markdown text, in order.

    Comments, code, targets of links and dates hold none. Digits within a word (``bf16``, ``3x3``,
    ``AVX-512``) and times such as ``3:12`` are none.
    """
    visible = _NO_NUMBERS.sub(lambda match: "\0" * len(match[0]), text)
    for match in _NUMBER.finditer(visible):
        yield ShownNumber(match["number"], match["unit"], match.start())
