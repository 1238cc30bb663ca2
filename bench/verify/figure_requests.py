"""What a tag says of its numbers: which statistics of which runs, or a product of such values.

``mean - low high of final_accuracy, runs in results/intel-xeon-2-cores where recipe == "fast"``
``value low high of epoch * epochs / fast``
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mnist_cnn.errors import UsageError

SKIPPED = "-"
"""Stands for a number that does not come from records, such as the 95 of "95 % interval"."""
LONGEST = 4_000
"""Most characters of what a tag says: the patterns below look at a text many times."""
EXAMPLE = 'write: mean low high of final_accuracy in results/<folder> where recipe == "fast"'
_HIDDEN = re.compile(r'"[^"]*"|\'[^\']*\'|\[[^\]]*\]|\([^)]*\)')
"""Texts and lists of a condition, in which no word of this grammar is looked for."""
_SOURCE = re.compile(r"(?P<groups>.+?) in (?P<places>[^\[\0\s][^\0]*?)(?: where (?P<where>.+))?")
_PRODUCT = re.compile(r"(?P<names>[\w -]+) of (?P<terms>\w+(?: [*/] \w+)+)")
_SCALE = re.compile(r"(?: [*/] \d+(?:\.\d+)?(?:e-?\d+)?)+$")
_SERIES = re.compile(r"(?P<columns>\w+(?: \+ \w+)*)(?: where (?P<where>.+))?")


@dataclass(frozen=True, slots=True)
class Series:
    """A column, or the sum of several, of the runs for which a condition holds."""

    columns: tuple[str, ...]
    where: str | None
    """A condition in the language of `report --filter`; None for all runs of the tag."""

    @property
    def name(self) -> str:
        """As messages name it."""
        return " + ".join(self.columns)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value of each run."""

    series: Series
    divisor: Series | None
    """What it is divided by: columns of the same run; or, with a condition, those of the run of the
    same seed for which it holds. None: it is not divided."""
    scale: float
    """What it is multiplied by."""


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring numbers that are statistics of one quantity."""

    names: tuple[str, ...]
    """A name a number, in order; `SKIPPED` for one that is not checked."""
    quantity: Quantity | None
    """What the names are statistics of; None where they are columns of a benchmark."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of the runs in some files and folders."""

    groups: tuple[Group, ...]
    places: tuple[str, ...]
    """Files and folders of records."""
    where: str | None
    """A condition on all runs; None for all."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name a number, in order."""
        return tuple(name for group in self.groups for name in group.names)


@dataclass(frozen=True, slots=True)
class Product:
    """Numbers that follow from values of earlier tags."""

    names: tuple[str, ...]
    """`value`, `low`, `high` or `SKIPPED`, a number each, in order."""
    factors: tuple[str, ...]
    """Names of tags."""
    divisors: tuple[str, ...]
    """Names of tags."""


def parse_request(text: str) -> Figures | Product:
    """Read what a tag says, on one line.

    Raises:
        UsageError: it is not of that grammar.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a tag takes at most {LONGEST:,} letters, not {len(text):,}")
    if match := _PRODUCT.fullmatch(text):
        first, *pairs = re.findall(r"([*/] )?(\w+)", match["terms"])
        factors = [first[1], *(name for sign, name in pairs if sign == "* ")]
        divisors = [name for sign, name in pairs if sign == "/ "]
        return Product(tuple(match["names"].split()), tuple(factors), tuple(divisors))
    hidden = _hide(text)
    source = _SOURCE.fullmatch(hidden)
    if source is None:
        raise UsageError(f"the tag {text[:60]!r} names no folder of records; {EXAMPLE}")
    spans = [match.span() for match in re.finditer(r"[^,]+", source["groups"])]
    groups = tuple(_group(text[start:end].strip()) for start, end in spans)
    places = tuple(place.strip() for place in text[slice(*source.span("places"))].split(","))
    where = None if source["where"] is None else text[slice(*source.span("where"))]
    return Figures(groups, places, where)


def _group(text: str) -> Group:
    names, of, quantity = text.partition(" of ")
    known = _quantity(quantity) if of else None
    if not re.fullmatch(r"[\w -]+", names):
        raise UsageError(f"{text[:60]!r} is no list of names; {EXAMPLE}")
    return Group(tuple(names.split()), known)


def _quantity(text: str) -> Quantity:
    scale = 1.0
    hidden = _hide(text)
    if numbers := _SCALE.search(hidden):
        for sign, number in re.findall(r"([*/]) (\S+)", numbers[0]):
            if not float(number):
                raise UsageError(f"{text[:60]!r} has a zero in it")
            scale = scale * float(number) if sign == "*" else scale / float(number)
        hidden = hidden[: numbers.start()]
    first, slash, second = hidden.partition(" / ")
    series = _series(text[: len(first)])
    divisor = text[len(first) + len(slash) : len(hidden)] if second else None
    return Quantity(series, None if divisor is None else _series(divisor), scale)


def _series(text: str) -> Series:
    match = _SERIES.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text[:60]!r} is no column; {EXAMPLE}")
    return Series(tuple(match["columns"].split(" + ")), match["where"])


def _hide(text: str) -> str:
    """The text with what a condition's texts and lists hold made unreadable."""
    return _HIDDEN.sub(lambda match: "\0" * len(match[0]), text)
