"""What a sweep runs: every combination of the requested values, in a random order.

Pure, apart from reading the matrix file: it starts no run and reads no clock.
"""

from __future__ import annotations

import math
import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import get_args

from bench.analysis.scaling import ScalingMode
from mnist_cnn.disk import read_text
from mnist_cnn.errors import UsageError, near_match, parsing_reason, reason_of
from mnist_cnn.recipe import DEVICES, RECIPES, Kernels, Precision, recipe_named

DEFAULT_SEEDS = 5
"""Below five runs of a set-up, an interval says little."""
MOST_RUNS = 100_000
"""Most runs of a sweep: more would take years."""
_MOST_BYTES = 32 * 1024
"""Most bytes of a file: Python's reader of TOML takes quadratic time for keys of many parts."""
_LARGEST_INTEGER = 999_999_999
"""Largest number of an axis: Python writes no number of thousands of digits."""


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep."""

    setup_options: tuple[str, ...]
    """Options of `run` that define the set-up; without the seed."""
    seed: int
    """Seed of the run."""

    @property
    def options(self) -> list[str]:
        """Options of `run`, without the label and the results folder."""
        return [*self.setup_options, "--seed", str(self.seed)]

    @property
    def name(self) -> str:
        """Name for people: ``"recipe fast, processes 2, seed 0"``."""
        return " ".join(self.options).removeprefix("--").replace(" --", ", ")


@dataclass(frozen=True, slots=True)
class Matrix:
    """The values to combine; `run` chooses the value of an empty axis."""

    recipe: tuple[str, ...] = ()
    """Names of recipes."""
    device: tuple[str, ...] = ()
    """Names from `DEVICES`."""
    precision: tuple[str, ...] = ()
    """Precisions that `run` accepts."""
    kernels: tuple[str, ...] = ()
    """Kernels that `run` accepts."""
    processes: tuple[int, ...] = ()
    """Numbers of processes that train together."""
    threads: tuple[int, ...] = ()
    """Numbers of threads per process."""
    seeds: tuple[int, ...] = tuple(range(DEFAULT_SEEDS))
    """Seeds, one run of each set-up per seed."""
    scaling: ScalingMode | None = None
    """How the batch follows the number of processes; None if the sweep is no scaling study."""

    def __post_init__(self) -> None:
        """Refuse values that `run` would refuse, and values that occur twice.

        Raises:
            UsageError: a value is wrong; the message names it.
        """
        for axis, known in _KNOWN_VALUES.items():
            for value in getattr(self, axis):
                if value not in known:
                    raise UsageError(
                        f"unknown {axis} {value!r}{near_match(value, known)}; there are: "
                        f"{', '.join(known)}"
                    )
        for axis in AXES:
            values = getattr(self, axis)
            if len(set(values)) < len(values):
                raise UsageError(f"{axis} has a value twice")
        for axis in ("processes", "threads"):
            if any(count < 1 for count in getattr(self, axis)):
                raise UsageError(f"{axis} must be at least 1")
        if not self.seeds or min(self.seeds) < 0:
            raise UsageError("seeds must be one or more whole numbers from 0 on")
        if self.scaling is not None and len(self.processes) < 2:
            raise UsageError(
                "scaling needs several process counts: add --processes 1,2,4, or in a file "
                "processes = [1, 2, 4]"
            )
        if self.scaling is ScalingMode.WEAK and (not self.recipe or "auto" in self.recipe):
            raise UsageError(
                "weak scaling multiplies the batch size of a recipe: name the recipe, not auto"
            )

    def runs(self, shared_options: Sequence[str] = ()) -> list[SweepRun]:
        """Every combination, seed by seed.

        Args:
            shared_options: options of `run` that every run gets.

        Raises:
            UsageError: there are too many.
        """
        axes = [axis for axis in AXES if axis != "seeds" and getattr(self, axis)]
        count = math.prod(len(getattr(self, axis)) for axis in (*axes, "seeds"))
        if count > MOST_RUNS:
            raise UsageError(f"a sweep has at most {MOST_RUNS:,} runs, not {count:,}")
        runs = []
        for seed in self.seeds:
            for values in product(*(getattr(self, axis) for axis in axes)):
                setup = dict(zip(axes, values, strict=True))
                options = [word for axis in axes for word in (f"--{axis}", str(setup[axis]))]
                batch_options = self._batch_options(setup)
                runs.append(SweepRun((*options, *batch_options, *shared_options), seed))
        return runs

    def _batch_options(self, setup: Mapping[str, str | int]) -> tuple[str, ...]:
        if self.scaling is not ScalingMode.WEAK:
            return ()
        batch_size = recipe_named(str(setup["recipe"])).batch_size * int(setup["processes"])
        return ("--batch-size", str(batch_size))


AXES = tuple(field.name for field in fields(Matrix) if field.name != "scaling")
_KNOWN_VALUES: dict[str, tuple[str, ...]] = {
    "recipe": ("auto", *sorted(RECIPES)),
    "device": ("auto", *sorted(DEVICES)),
    "precision": ("auto", *get_args(Precision)),
    "kernels": ("auto", *get_args(Kernels)),
}
_INTEGER_AXES = ("processes", "threads", "seeds")


def read_matrix(path: Path) -> Matrix:
    """Read a matrix from a TOML file: ``recipe = ["fast"]``, ``processes = [1, 2]``.

    Raises:
        UsageError: the file cannot be read, or has a key or value that a matrix does not have.
    """
    try:
        document = tomllib.loads(read_text(path, _MOST_BYTES))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
    except RecursionError:
        raise UsageError(f"{path} is not a matrix: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a TOML file: {parsing_reason(error)}") from error
    values: dict[str, tuple[str, ...] | tuple[int, ...]] = {}
    scaling = None
    for key, value in document.items():
        if key == "scaling":
            scaling = parse_scaling(value)
        elif key in AXES:
            values[key] = _axis_values(key, value)
        else:
            known = (*AXES, "scaling")
            raise UsageError(
                f"{path}: unknown key {key!r}{near_match(key, known)}; the keys are: "
                f"{', '.join(known)}"
            )
    return replace(Matrix(**values), scaling=scaling)  # type: ignore[arg-type]


def _axis_values(axis: str, value: object) -> tuple[str, ...] | tuple[int, ...]:
    """The values of an axis in a file: one value, a list, or a number of seeds."""
    is_integer = axis in _INTEGER_AXES
    values = value if isinstance(value, list) else [value]
    # isinstance would accept a bool as an int.
    if not values or any(type(item) is not (int if is_integer else str) for item in values):
        expected = "whole numbers, such as [1, 2]" if is_integer else "words, such as ['auto']"
        raise UsageError(f"{axis} takes {expected}")
    if is_integer and max(map(abs, values)) > _LARGEST_INTEGER:
        raise UsageError(f"{axis} takes whole numbers up to {_LARGEST_INTEGER:,}")
    return _first_seeds(value) if axis == "seeds" and isinstance(value, int) else tuple(values)


def with_overrides(
    matrix: Matrix, overrides: Mapping[str, str | None], scaling: str | None
) -> Matrix:
    """A copy of the matrix in which the values of the command line replace its own.

    Args:
        matrix: from a file, or an empty one.
        overrides: values by axis, separated by commas, such as ``"1,2,4"``; None keeps the axis.
        scaling: ``"strong"`` or ``"weak"``; None keeps the matrix's own.

    Raises:
        UsageError: a value is wrong; the message names it.
    """
    values: dict[str, tuple[str, ...] | tuple[int, ...]] = {}
    for axis, text in overrides.items():
        if text is None:
            continue
        words = [word.strip() for word in text.split(",")]
        if axis in _INTEGER_AXES:
            values[axis] = _parse_integers(axis, words)
        else:
            values[axis] = tuple(words)
    mode = matrix.scaling if scaling is None else parse_scaling(scaling)
    return replace(matrix, **values, scaling=mode)  # type: ignore[arg-type]


def _parse_integers(axis: str, words: Sequence[str]) -> tuple[int, ...]:
    if not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        raise UsageError(f"{axis} takes whole numbers, such as 1,2,4, not {','.join(words)!r}")
    numbers = tuple(map(int, words))
    # As in a file: one number is the number of seeds, several are the seeds themselves.
    return _first_seeds(numbers[0]) if axis == "seeds" and len(numbers) == 1 else numbers


def _first_seeds(count: int) -> tuple[int, ...]:
    if count > MOST_RUNS:
        raise UsageError(f"a sweep has at most {MOST_RUNS:,} runs, not {count:,}")
    return tuple(range(count))


def parse_scaling(value: object) -> ScalingMode:
    """Parse "strong" or "weak".

    Raises:
        UsageError: the value is neither.
    """
    if not isinstance(value, str) or value not in list(ScalingMode):
        shown = f", not {value!r}" if isinstance(value, str) else ""
        raise UsageError(f"scaling is strong or weak{shown}")
    return ScalingMode(value)


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a sweep that one of several machines runs."""

    index: int
    """Number of the part, from 1 to `count`."""
    count: int
    """Number of parts."""

    def __str__(self) -> str:
        """``"2/4"``."""
        return f"{self.index}/{self.count}"

    def select(self, runs: Sequence[SweepRun]) -> list[SweepRun]:
        """Every `count`-th run, so that all parts have a similar mix of set-ups."""
        return list(runs[self.index - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """Parse a shard such as ``"2/4"``.

    Raises:
        UsageError: the text is no shard, or its index is not within 1 to count.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"shard takes i/n with i from 1 to n, such as 2/4, not {text!r}")
    return Shard(int(match[1]), int(match[2]))


def randomized_blocks(runs: Sequence[SweepRun], order_seed: int) -> list[SweepRun]:
    """The runs in random order within each seed, seed after seed.

    Randomised blocks: drift of the machine during a sweep (heat, other programs) affects all
    set-ups alike, and in a sweep that stops early the run counts of two set-ups differ by at most
    one.
    """
    generator = random.Random(order_seed)
    blocks: dict[int, list[SweepRun]] = {}
    for run in runs:
        blocks.setdefault(run.seed, []).append(run)
    return [run for block in blocks.values() for run in generator.sample(block, k=len(block))]
