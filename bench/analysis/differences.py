"""In what two lists of runs differ: what forbids a comparison, and what it must mention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set

from bench.analysis.protocol_rules import comparable_protocol
from bench.records.schema import RunRecord
from bench.text import printable

Field = tuple[str, Callable[[RunRecord], object]]
"""A property of a run by the name that messages give it. A frozenset holds all values that the run
might as well have; such sets agree where they have a value in common."""

INCOMPARABLE: tuple[Field, ...] = (
    ("data sums", lambda r: tuple(sorted(r.dataset.items()))),
    ("target", lambda r: r.protocol.target_accuracy),
    ("protocol version", comparable_protocol),
    ("division", lambda r: r.division),
    ("images evaluated on", lambda r: r.recipe.get("evaluation_split", "test")),
    ("--stop-at-target", lambda r: r.protocol.stop_at_target),
)
"""Runs that differ in these answer different questions and are not compared."""
POOLED: tuple[Field, ...] = (
    ("recipe", lambda r: tuple(sorted((k, str(v)) for k, v in r.recipe.items()))),
)
"""Runs that differ in these are not pooled within a side."""
KERNELS: Field = ("kernels", lambda r: r.setup.computed_by)
REMARKED: tuple[Field, ...] = (
    ("precision", lambda r: r.setup.precision),
    ("threads", lambda r: r.setup.threads),
    ("processes", lambda r: r.setup.processes),
    ("machines", lambda r: r.setup.machines),
    ("runs at a time", lambda r: r.setup.parallel_seeds),
    ("global batch", lambda r: r.recipe.get("batch_size")),
    ("device", lambda r: r.setup.device_name),
    ("processor", lambda r: r.environment.cpu),
    ("torch", lambda r: r.environment.torch),
    ("accelerate", lambda r: r.environment.accelerate),
    ("driver", lambda r: r.environment.driver),
    ("record schema", lambda r: r.schema_version),
)
"""Sides that differ in these, or in `KERNELS`, are compared, with a remark."""


def find_differences(
    fields: Iterable[Field], base: Sequence[RunRecord], new: Sequence[RunRecord]
) -> list[str]:
    """A line for each of the fields that has more than one value in the two lists together."""
    lines = []
    for name, value in fields:
        base_values, new_values = (
            {_hashable(value(record)) for record in records} for records in (base, new)
        )
        if not _agree(base_values | new_values):
            lines.append(describe_difference(name, base_values, new_values))
    return lines


def _agree(values: set[object]) -> bool:
    alternatives = [value for value in values if isinstance(value, frozenset)]
    if alternatives and len(alternatives) == len(values):
        return bool(frozenset.intersection(*alternatives))
    return len(values) <= 1


def _hashable(value: object) -> object:
    """The value, or its text: the recipe of a foreign record may hold anything."""
    return (
        value
        if isinstance(value, tuple | frozenset | str | int | float | bool | None)
        else repr(value)
    )


def describe_difference(name: str, base: Set[object], new: Set[object]) -> str:
    """``"torch differs: 2.15.0 (base), 2.16.0 (new)"``; of tuples of pairs, the names that differ.

    Where both sides are the same runs: ``"torch differs: 2.15.0, 2.16.0"``.
    """
    if all(isinstance(value, tuple) for value in base | new):
        pairs = [set(value) for value in base | new if isinstance(value, tuple)]
        changed = sorted(str(key) for key, _ in set.union(*pairs) - set.intersection(*pairs))
        return f"{name} differs: {printable(', '.join(dict.fromkeys(changed)))}"
    if base == new:
        return f"{name} differs: {printable(', '.join(sorted(_texts(base))))}"
    before, after = (printable(" or ".join(sorted(_texts(values)))) for values in (base, new))
    return f"{name} differs: {before} (base), {after} (new)"


def _texts(values: Set[object]) -> set[str]:
    """Each value as text, and each of the alternatives of a frozenset."""
    alternatives = [value if isinstance(value, frozenset) else {value} for value in values]
    return {str(value) for value in set().union(*alternatives)}
