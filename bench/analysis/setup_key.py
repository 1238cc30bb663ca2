"""The one key that says whether two runs have the same set-up, and in which fields."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.records.machine_key import MachineKey
from bench.records.schema import RunRecord

RUN_COUNT_FIELDS = ("protocol.runs", "protocol.half_width", "protocol.budget_seconds")
"""Fields that say how many runs a benchmark was to have; they change no run."""

UNNAMED_RECIPE = "unnamed recipe"
_NESTED = (dict, list)
_HOW_CODE_WAS_CHOSEN = ("fallbacks", "kernel_shapes")
"""Fields that make no other set-up: it is the same, however its code was found."""


@dataclass(frozen=True, slots=True)
class SetupKey:
    """What a run has in common with the other runs of its benchmark: equal keys, equal set-ups.

    A field is named by its path in the record, as ``setup.threads``. ``folder`` is the record's
    folder, ``recipe_name`` the recipe's name as tables show it, and ``machine`` the facts of its
    `MachineKey`: runs of unlike machines are never of one benchmark. `of` and `ignoring` also
    take the name of a section, which stands for all its fields: ``recipe`` for ``recipe.epochs``.
    """

    fields: tuple[tuple[str, str], ...]
    """Each field's name and its value as text, in an order that does not depend on the run."""

    @classmethod
    def of(
        cls, record: RunRecord, path: Path | None = None, only: Collection[str] | None = None
    ) -> SetupKey:
        """The key of a run.

        Args:
            record: the run.
            path: the record's file, where its folder is to be part of the key.
            only: fields and sections that are to be part of the key; None for all.
        """
        if only is None:
            fields = _fields(record, path, None)
        else:
            sections = frozenset(name.partition(".")[0] for name in only)
            fields = (
                field for field in _fields(record, path, sections) if _is_named(field[0], only)
            )
        return cls(tuple([(name, _text(value)) for name, value in fields]))

    def ignoring(self, *names: str) -> SetupKey:
        """The key without these fields."""
        return SetupKey(tuple([field for field in self.fields if not _is_named(field[0], names)]))


def recipe_name(record: RunRecord) -> str:
    """The recipe's name, or a phrase for a recipe without one."""
    return str(record.recipe.get("name") or UNNAMED_RECIPE)


def _fields(
    record: RunRecord, path: Path | None, sections: Collection[str] | None
) -> Iterator[tuple[str, object]]:
    """The fields of these sections, or of all, and those that are cheap to know."""

    def has(section: str) -> bool:
        return sections is None or section in sections

    yield "folder", None if path is None else str(path.parent)
    yield "recipe_name", recipe_name(record)
    if has("machine"):
        yield "machine", MachineKey.of(record.environment).facts
    for name in ("benchmark_id", "division", "label"):
        yield name, getattr(record, name)
    if has("environment"):
        for name in ("accelerate", "commit", "dirty", "torch", "version"):
            yield f"environment.{name}", getattr(record.environment, name)
    if has("recipe"):
        for name in sorted(record.recipe):
            yield f"recipe.{name}", record.recipe[name]
    if has("protocol"):
        for name, value in record.protocol:
            yield f"protocol.{name}", value
    if has("setup"):
        for name, value in record.setup:
            if name not in _HOW_CODE_WAS_CHOSEN:
                yield f"setup.{name}", value


def _text(value: object) -> str:
    """The value as text, equal for equal values of one type, whatever the order of an object."""
    return json.dumps(value, sort_keys=True) if isinstance(value, _NESTED) else repr(value)


def _is_named(field: str, names: Collection[str]) -> bool:
    return field in names or field.partition(".")[0] in names
