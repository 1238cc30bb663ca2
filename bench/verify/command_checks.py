"""The checks `command` and `recipe`: the record is of what its command asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import JsonValue

from bench.records.schema import RunRecord
from bench.text import printable
from bench.verify.checks import Check, CheckFinding, ResultsFolder
from bench.verify.recorded_command import is_run, option_value
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import RECIPES, REFERENCE, Recipe, with_overrides

_UNKNOWN_WORDS = ("auto",)
"""Values that the machine decides."""


def _find_command_problems(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for name, record in folder.records:
        if not record.command:
            yield CheckFinding(f"{name}: it has no command")
        elif not is_run(record.command):
            yield CheckFinding(
                f"{name}: started by {printable(record.command[0])[:40]!r}, whose options are not "
                "known here",
                unknown=True,
            )
        else:
            for option, asked, actual in _differences(record):
                yield CheckFinding(
                    f"{name}: its command says {option} {printable(asked)[:40]}, the record "
                    f"{printable(actual)[:40]}"
                )
        for problem in _device_problems(record):
            yield CheckFinding(f"{name}: {printable(problem)}")


def _differences(record: RunRecord) -> Iterator[tuple[str, str, str]]:
    """Options of the command that are not what the record holds: option, asked, recorded."""
    setup, recipe = record.setup, record.recipe
    recorded = {
        "--recipe": recipe.get("name"),
        "--runs": record.protocol.runs,
        "--device": setup.device,
        "--threads": setup.threads,
        "--processes": setup.processes,
        "--machines": setup.machines,
        "--precision": setup.precision,
        "--kernels": setup.kernels,
        "--epochs": recipe.get("epochs"),
        "--batch-size": recipe.get("batch_size"),
        "--pipeline": recipe.get("pipeline"),
        "--label": record.label,
    }
    for option, actual in recorded.items():
        asked = option_value(record.command, option)
        if asked is None or asked in _UNKNOWN_WORDS or actual is None:
            continue
        if not _is_same(asked, actual):
            yield option, asked, str(actual)
    if "--stop-at-target" in record.command and not record.protocol.stop_at_target:
        yield "--stop-at-target", "", "does not stop there"


def _is_same(asked: str, actual: JsonValue) -> bool:
    if isinstance(actual, int) and re.fullmatch(r"[+-]?\d{1,18}", asked.strip()):
        return int(asked) == actual
    # The names of compiled code before version 9 of records.
    return asked == str(actual) or (asked in ("native", "avx512") and actual == "avx512-bf16")


def _device_problems(record: RunRecord) -> Iterator[str]:
    """Two places that name the device."""
    trained, environment = record.setup.device_name, record.environment
    if trained != environment.device_name:
        yield f"it trained on {trained[:40]}, its device is {environment.device_name[:40]}"
    elif record.setup.device == "cpu" and trained != environment.cpu:
        yield f"it trained on {trained[:40]}, its processor is {environment.cpu[:40]}"


def _find_recipe_problems(folder: ResultsFolder) -> Iterator[CheckFinding]:
    known: dict[str, Mapping[str, Mapping[str, Any]] | None] = {}
    for name, record in folder.records:
        commit = record.environment.commit or ""
        if commit not in known:
            known[commit] = folder.history.recipes(commit)
        yield from (
            CheckFinding(f"{name}: {printable(text)}", unknown=unknown)
            for text, unknown in _recipe_problems(record, known[commit])
        )


def _recipe_problems(
    record: RunRecord, recipes: Mapping[str, Mapping[str, Any]] | None
) -> Iterator[tuple[str, bool]]:
    """What is not the recipe of that name: a line, and whether it may be right all the same."""
    is_known = recipes is not None
    defined = recipes if recipes is not None else {n: asdict(r) for n, r in RECIPES.items()}
    name = str(record.recipe.get("name"))
    values = defined.get(name)
    if values is None:
        return  # a recipe of somebody's own, and the division says open
    expected = _with_options(values, record.command)
    if expected is None:
        return  # the check of the command reports options that no recipe has
    differing = [
        field
        for field in sorted(expected.keys() & record.recipe.keys())
        if not _close(expected[field], record.recipe[field])
        # A device on which another layout is slow or wrong uses this one.
        and (field, record.recipe[field]) != ("memory_format", "contiguous")
    ]
    if differing:
        field = differing[0]
        where = f"{name!r} at its commit" if is_known else f"{name!r} of this checkout"
        more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
        yield (
            f"its {field} is {record.recipe[field]}, that of {where} is {expected[field]}{more}",
            not is_known,
        )


def _with_options(values: Mapping[str, Any], command: list[str]) -> dict[str, Any] | None:
    """A recipe's values with the command's changes; None where they are none."""
    try:
        # A field that older recipes lack has, in the reference, the value that changes nothing.
        recipe = Recipe(**{**REFERENCE.values(), **values})
        epochs, batch_size = (
            None if text is None else int(text)
            for text in (option_value(command, "--epochs"), option_value(command, "--batch-size"))
        )
        changed = with_overrides(
            recipe, epochs, option_value(command, "--pipeline"), batch_size
        ).values()
    except (TypeError, ValueError, UsageError):
        return None
    return {field: changed[field] for field in values if field in changed}


def _close(expected: object, actual: object) -> bool:
    if isinstance(expected, float) and isinstance(actual, int | float):
        return abs(expected - actual) <= 1e-9 * abs(expected)
    return expected == actual


COMMAND = Check(
    "command",
    "recipe, runs, device, ranks, threads, precision and kernels are what the command says, where "
    "it says so; the device has one name",
    "Records must not be edited: restore the file as the run wrote it, or run again.",
    _find_command_problems,
)
RECIPE = Check(
    "recipe",
    "a recipe with the name of a built-in one has that recipe's values, by the code of its commit",
    "Give a recipe of your own a name of its own.",
    _find_recipe_problems,
)
