"""The values of a run that a tracker receives: its configuration, its curves, its results."""

from __future__ import annotations

import json
from collections.abc import Iterable

from bench.analysis.columns import MEASURED, columns_with
from bench.records.schema import LapKind, RunRecord
from bench.text import printable
from mnist_cnn.recipe import Recipe

Value = str | int | float
"""A value that every tracker accepts (a truth value is an int)."""

_EXACT_BELOW = 2**53
"""Whole numbers from here on are rounded by TensorBoard; Trackio refuses all values with them."""
_CURVES = {"laps", "epochs", "evaluations", "mistakes"}
"""Fields of a record that are lists of measurements."""


def config(record: RunRecord) -> dict[str, Value]:
    """Every field of a record except its curves; the name of an inner field is its path.

    A list, null, or a whole number that is too large for some tracker becomes its JSON.
    """
    values = record.model_dump(mode="json", exclude=_CURVES)
    return {name: _accepted(value) for name, value in _leaves("", values)}


def curve(record: RunRecord, recipe: Recipe) -> dict[int, dict[str, float]]:
    """The measurements of each epoch, by epoch; without those that are missing or not finite.

    The learning rate is that of the epoch's last step, by the recipe's schedule.
    """
    from mnist_cnn.optim import learning_rates
    from mnist_cnn.sampler import steps_in_epoch

    epochs = range(1, recipe.epochs + 1)
    steps = sum(steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in epochs)
    rates = learning_rates(recipe, steps)
    train_seconds = {lap.epoch: lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN}
    points: dict[int, dict[str, float]] = {}
    steps_done = 0
    for epoch in record.epochs:
        steps_done += epoch.steps
        point = points.setdefault(epoch.epoch, {})
        point["train/learning_rate"] = float(rates[steps_done - 1])
        if epoch.loss is not None:
            point["train/loss"] = epoch.loss
        if seconds := train_seconds.get(epoch.epoch):
            point["train/images_per_second"] = epoch.samples / seconds
    for evaluation in record.evaluations:
        point = points.setdefault(evaluation.epoch, {})
        point["evaluation/accuracy"] = evaluation.accuracy
        if evaluation.loss is not None:
            point["evaluation/loss"] = evaluation.loss
    return points


def summary(record: RunRecord) -> dict[str, float]:
    """The measured columns of a run that have a value."""
    cells = {column.name: column.cell((None, record)) for column in columns_with(MEASURED)}
    return {
        f"summary/{name}": value for name, value in cells.items() if isinstance(value, int | float)
    }


def _leaves(path: str, value: object) -> Iterable[tuple[str, object]]:
    """The leaves of a tree, each with its path; an empty branch is a leaf."""
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(f"{path}.{key}" if path else key, inner)


def _accepted(value: object) -> Value:
    """The value as every tracker accepts it."""
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _EXACT_BELOW):
        return value
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
