"""Parts of a record: what the run did, as timed and counted."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from bench.records.model import Count, Model, Number, Seconds, Whole


class LapKind(StrEnum):
    """What a timed span was spent on."""

    STARTUP = "startup"
    """From the start of the process to the start of its first measurement: imports, ranks."""
    WARMUP = "warmup"
    """The discarded warm-up run, compilation included."""
    INIT = "init"
    """From the first touch of the data to the first step: read, verify, move, build."""
    TRAIN = "train"
    EVAL = "eval"
    CHECKPOINT = "checkpoint"
    """Saving the state after an epoch."""
    RESUME = "resume"
    """The same as INIT, in a process that resumes from a checkpoint. No lap covers the time that
    was lost before."""


class Lap(Model):
    """A timed span. The device's queue is empty at both ends; of several ranks, the slowest."""

    kind: LapKind
    """What the time was spent on."""
    epoch: Whole | None = None
    """Number of the epoch, from 1; null for laps of no epoch."""
    start_seconds: Number
    """Seconds from the start of the run's clock; negative for start-up and warm-up."""
    seconds: Seconds
    """Length of the span."""


class TrainedEpoch(Model):
    """What an epoch of training reported."""

    epoch: Whole
    """Number of the epoch, from 1."""
    steps: Count
    """Number of optimizer steps."""
    samples: Count
    """Number of training images, over all ranks."""
    loss: Number | None
    """Mean training loss; null where it was not finite."""


class Evaluation(Model):
    """What an evaluation counted."""

    epoch: Whole
    """Number of the epoch after which it was made."""
    samples: Annotated[Whole, Field(gt=0)]
    """Number of evaluated images."""
    correct: Count
    """Number of images that were classified correctly."""
    loss: Number | None
    """Mean loss of the evaluated images; null where it was not finite."""
    samples_seen: Count
    """Number of training images before the evaluation, over all ranks."""

    @model_validator(mode="after")
    def _correct_is_at_most_all(self) -> Self:
        if self.correct > self.samples:
            raise ValueError("correct is more than samples")
        return self

    @property
    def accuracy(self) -> float:
        """Share of images that are classified correctly, 0 to 1."""
        return self.correct / self.samples


def first_reached(evaluations: list[Evaluation], target_accuracy: float) -> int | None:
    """Epoch of the first evaluation at or above the target, or None."""
    return next((e.epoch for e in evaluations if e.accuracy >= target_accuracy), None)


class Mistakes(Model):
    """The images that the last evaluation got wrong, found after the run, off its clock."""

    images: list[Count]
    """Rising numbers, from 0, of images in the test set, unless the recipe's `evaluation_split`
    names another set."""
    predicted: list[Annotated[Whole, Field(ge=0, le=9)]]
    """The digit that each of `images` was taken for."""

    @model_validator(mode="after")
    def _has_one_prediction_per_image(self) -> Self:
        if len(self.images) != len(self.predicted):
            raise ValueError("not one prediction an image")
        if any(a >= b for a, b in pairwise(self.images)):
            raise ValueError("images are not in rising order")
        return self
