"""Parse and check option values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TypedDict

from bench.measure.request import CheckpointRequest
from bench.records.protocol import MOST_RUNS
from bench.records.store import gc_paused
from bench.text import printable
from mnist_cnn.accuracy import parse_accuracy as parse_accuracy
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe, recipe_named
from mnist_cnn.whole_numbers import MOST_REPEATS, parse_whole

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``10m`` or ``1.5h``, the value of --budget.

    Raises:
        UsageError: the text has another form.
    """
    word = text.strip().lower()
    number = word.rstrip("".join(_UNITS))
    unit = word[len(number) :].strip()
    try:
        seconds = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"--budget takes a time, such as 90s, 10m or 1.5h, not {text[:40]!r}")
    return seconds


def parse_share(text: str, option: str) -> float:
    """The fraction that ``5%``, ``5 %`` or ``0.05`` stands for.

    Raises:
        UsageError: the text has another form; the message names the option.
    """
    word = text.strip()
    try:
        value = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} takes a number, such as 5% or 0.05, not {text!r}")
    return value


def parse_points(text: str, option: str) -> float:
    """Percentage points from 0 to below 100, such as ``0.05``.

    Raises:
        UsageError: the text is no such number; the message names the option.
    """
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points < 100:
        raise UsageError(f"{option} takes percentage points, such as 0.05, not {printable(text)!r}")
    return points


def reject_reserved(words: Iterable[str], reserved: Collection[str], command: str) -> None:
    """Refuse options of `run` that a command sets itself.

    Raises:
        UsageError: one of the words is such an option.
    """
    for word in words:
        option = word.split("=")[0]
        if option in reserved:
            raise UsageError(f"{command} sets {option} itself: leave it out")


def find_recipe(name: str, device: str) -> Recipe:
    """The recipe of a name; "auto" is the open division's recipe for the device."""
    if name == "auto":
        # Lazy: torch is slow to import, and knows the device.
        with gc_paused():
            from bench.measure.plan import choose_recipe

        name = choose_recipe(device)
    return recipe_named(name)


def check_checkpoints(
    request: CheckpointRequest, conflicts: dict[str, bool], *, has_folder: bool
) -> CheckpointRequest | None:
    """The request, or None where the options ask for no checkpoints.

    Args:
        request: the options as they are given.
        conflicts: whether each option that rules checkpoints out is given.
        has_folder: whether a folder for checkpoints is given.

    Raises:
        UsageError: the options contradict each other.
    """
    if request.every is None and not request.resume:
        for option, is_given in (
            ("--fall-back", request.fall_back),
            ("--checkpoint-dir", has_folder),
        ):
            if is_given:
                raise UsageError(f"{option} is for --checkpoint-every or --resume")
        return None
    if request.every is not None and request.every < 1:
        raise UsageError(f"--checkpoint-every must be at least 1 epoch, not {request.every}")
    if request.fall_back and not request.resume:
        raise UsageError("--fall-back is for --resume")
    for option, is_given in conflicts.items():
        if is_given:
            raise UsageError(
                f"{option} leaves no records to resume from: leave it or the checkpoints out"
            )
    return request


class RunCount(TypedDict):
    """The fields of `BenchmarkProtocol` that say how many runs are made."""

    runs: int
    half_width: float | None
    budget_seconds: float | None


def parse_run_count(
    runs: str, half_width: str | None, max_runs: int | None, budget: str | None
) -> RunCount:
    """The options about the number of runs, as fields of `BenchmarkProtocol`."""
    if runs == "auto":
        if max_runs is not None and max_runs < 1:
            raise UsageError(f"--max-runs must be at least 1, not {max_runs}")
        return {
            "runs": max_runs or MOST_RUNS,
            "half_width": parse_share(half_width or "5%", "--half-width"),
            "budget_seconds": None if budget is None else parse_duration(budget),
        }
    options = {"--half-width": half_width, "--max-runs": max_runs, "--budget": budget}
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} is for --runs auto")
    try:
        count = parse_whole(runs, MOST_REPEATS, word_besides="auto")
    except ValueError as error:
        raise UsageError(f"--runs {error}") from None
    return {"runs": count, "half_width": None, "budget_seconds": None}
