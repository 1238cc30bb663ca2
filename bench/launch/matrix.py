"""What a sweep runs: every combination of the values that were asked for, in an order of chance.

Pure: no run, no file but the one that is read, no clock.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import get_args

from bench.analysis.scaling import ScalingMode
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.recipe import RECIPES, Kernels, Precision, recipe_named

DEFAULT_SEEDS = 5
"""Below five runs of a set-up there is no interval worth the name."""
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep."""

    options: tuple[str, ...]
    """Of `run`, without the seed: what says which set-up it is."""
    seed: int

    @property
    def words(self) -> list[str]:
        """Options of `run`, all but where its record goes and by what name."""
        return [*self.options, "--seed", str(self.seed)]

    @property
    def name(self) -> str:
        """``"recipe fast, processes 2, seed 0"``."""
        return " ".join(self.words).removeprefix("--").replace(" --", ", ")


@dataclass(frozen=True, slots=True)
class Matrix:
    """The values to combine; an empty axis is left to `run`, which then chooses."""

    recipe: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    precision: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    """How many train together."""
    threads: tuple[int, ...] = ()
    """Of each process."""
    seeds: tuple[int, ...] = tuple(range(DEFAULT_SEEDS))
    scaling: ScalingMode | None = None

    def __post_init__(self) -> None:
        """Refuse what `run` would refuse in every cell, and what could not be told apart.

        Raises:
            UsageError: with what is wrong.
        """
        for axis, known in _KNOWN.items():
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
            raise UsageError("--scaling needs several process counts, as --processes 1,2,4")
        if self.scaling is ScalingMode.WEAK and (not self.recipe or "auto" in self.recipe):
            raise UsageError(
                "--scaling weak multiplies the recipe's batch: name one with --recipe, not auto"
            )

    def cells(self, extra: Sequence[str] = ()) -> list[SweepRun]:
        """Every combination, seed by seed.

        Args:
            extra: options of `run` for every cell.
        """
        axes = [axis for axis in AXES if axis != "seeds" and getattr(self, axis)]
        found = []
        for seed in self.seeds:
            for values in product(*(getattr(self, axis) for axis in axes)):
                of = dict(zip(axes, values, strict=True))
                options = [word for axis in axes for word in (f"--{axis}", str(of[axis]))]
                found.append(SweepRun((*options, *self._batch(of), *extra), seed))
        return found

    def _batch(self, of: Mapping[str, str | int]) -> tuple[str, ...]:
        if self.scaling is not ScalingMode.WEAK:
            return ()
        batch = recipe_named(str(of["recipe"])).batch_size * int(of["processes"])
        return ("--batch-size", str(batch))


AXES = tuple(field.name for field in fields(Matrix) if field.name != "scaling")
_KNOWN: dict[str, tuple[str, ...]] = {
    "recipe": ("auto", *sorted(RECIPES)),
    "device": DEVICES,
    "precision": ("auto", *get_args(Precision)),
    "kernels": ("auto", *get_args(Kernels)),
}
_WHOLE = ("processes", "threads", "seeds")


def read_matrix(path: Path) -> Matrix:
    """The matrix that a TOML file describes: ``recipe = ["fast"]``, ``processes = [1, 2]``.

    Raises:
        UsageError: it cannot be read, or holds what a matrix does not.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
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
                f"{path} has {key!r}{near_match(key, known)}; a matrix has: {', '.join(known)}"
            )
    return replace(Matrix(**values), scaling=scaling)  # type: ignore[arg-type]


def _axis_values(key: str, value: object) -> tuple[str, ...] | tuple[int, ...]:
    """An axis of a file: a value, or a list of them; a number of seeds stands for the first."""
    whole = key in _WHOLE
    if key == "seeds" and type(value) is int:
        return tuple(range(value))
    listed = value if isinstance(value, list) else [value]
    # bool is an int to isinstance.
    if not listed or any(type(one) is not (int if whole else str) for one in listed):
        how = "whole numbers, as [1, 2]" if whole else "words, as ['auto']"
        raise UsageError(f"{key} takes {how}")
    return tuple(listed)


def with_overrides(matrix: Matrix, asked: Mapping[str, str | None], scaling: str | None) -> Matrix:
    """The matrix with the axes that a command line gives in place of its own.

    Args:
        matrix: of a file, or an empty one.
        asked: an axis's values with commas between them, as ``"1,2,4"``; None leaves it.
        scaling: likewise.

    Raises:
        UsageError: these are no values.
    """
    values: dict[str, tuple[str, ...] | tuple[int, ...]] = {}
    for axis, text in asked.items():
        if text is None:
            continue
        words = [word.strip() for word in text.split(",")]
        if axis in _WHOLE:
            values[axis] = _whole_numbers(axis, words)
        else:
            values[axis] = tuple(words)
    mode = matrix.scaling if scaling is None else parse_scaling(scaling)
    return replace(matrix, **values, scaling=mode)  # type: ignore[arg-type]


def _whole_numbers(axis: str, words: Sequence[str]) -> tuple[int, ...]:
    if not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        raise UsageError(f"--{axis} takes whole numbers, as 1,2,4, not {','.join(words)!r}")
    numbers = tuple(map(int, words))
    # As in a file: one number says how many, several say which.
    return tuple(range(numbers[0])) if axis == "seeds" and len(numbers) == 1 else numbers


def parse_scaling(value: object) -> ScalingMode:
    """Strong or weak.

    Raises:
        UsageError: neither.
    """
    try:
        return ScalingMode(str(value))
    except ValueError:
        raise UsageError(f"scaling is strong or weak, not {value!r}") from None


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a sweep: the cells that one of several machines runs."""

    index: int
    """From 1."""
    count: int

    def __str__(self) -> str:
        """``"2/4"``."""
        return f"{self.index}/{self.count}"

    def of(self, cells: Sequence[SweepRun]) -> list[SweepRun]:
        """Its cells: every so-manyth, so that shards are as alike as they can be."""
        return list(cells[self.index - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """A shard of ``"2/4"``.

    Raises:
        UsageError: it is none, or there is no such one.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard takes i/n with i from 1 to n, as 2/4, not {text!r}")
    return Shard(int(match[1]), int(match[2]))


def randomized_blocks(cells: Sequence[SweepRun], order_seed: int) -> list[SweepRun]:
    """The cells in an order of chance within each seed, seed after seed.

    Randomised blocks: whatever drifts on the machine while a sweep runs (heat, neighbours) falls on
    all set-ups alike, and a sweep that is cut short has as many runs of each, to within one.
    """
    generator = random.Random(order_seed)
    blocks: dict[int, list[SweepRun]] = {}
    for cell in cells:
        blocks.setdefault(cell.seed, []).append(cell)
    return [cell for block in blocks.values() for cell in generator.sample(block, k=len(block))]
