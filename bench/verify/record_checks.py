"""Checks of single records: their data, protocol, laps and division."""

from __future__ import annotations

from collections.abc import Iterator

from bench.records.protocol import KNOWN_PROTOCOLS, QUALITY_TARGET
from bench.records.schema import RunRecord, Status
from bench.verify.checks import Check, for_each_record
from bench.verify.consistency import find_contradictions
from mnist_cnn.data import files
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import FREE_IN_CLOSED, REFERENCE, Recipe, division

_KNOWN_PROTOCOLS = " or ".join(map(str, KNOWN_PROTOCOLS))
_FIRST_SCHEMA_OF_PROTOCOL_2 = 8
_MNIST_SUMS = {file.name: file.sha256 for file in files.FILES}


def _data(record: RunRecord) -> Iterator[str]:
    # A run that ended before it read the data has no sums.
    if not record.dataset and record.status is not Status.COMPLETED:
        return
    for name in sorted(_MNIST_SUMS.keys() | record.dataset.keys()):
        if record.dataset.get(name) != _MNIST_SUMS.get(name):
            yield f"{name}: SHA-256 {record.dataset.get(name)}, MNIST's is {_MNIST_SUMS.get(name)}"


def _protocol(record: RunRecord) -> Iterator[str]:
    protocol = record.protocol
    if protocol.version not in KNOWN_PROTOCOLS:
        yield f"protocol version {protocol.version}, not {_KNOWN_PROTOCOLS}"
    elif protocol.version > 1 and record.schema_version < _FIRST_SCHEMA_OF_PROTOCOL_2:
        yield (
            f"schema_version {record.schema_version} knows no protocol version {protocol.version}"
        )
    if protocol.target_accuracy != QUALITY_TARGET:
        yield f"target {protocol.target_accuracy}, not {QUALITY_TARGET}"
    split = record.recipe.get("evaluation_split", "test")
    if split != "test":
        yield f"evaluated on {split} images, not on the test set"


def _division(record: RunRecord) -> Iterator[str]:
    # A field that older recipes lack has, in the reference, the value that changes nothing.
    values = {**REFERENCE.values(), **record.recipe}
    try:
        recipe = Recipe(**values)
        actual = division(recipe)
        too_long = [e.epoch for e in record.epochs if e.samples > recipe.train_images]
    except (TypeError, UsageError) as error:
        yield f"its recipe is not valid: {error}"
        return
    if record.division != actual:
        differing = [
            name
            for name, value in REFERENCE.values().items()
            if name not in FREE_IN_CLOSED and values[name] != value
        ]
        reason = f": unlike the reference in {', '.join(differing)}" if actual == "open" else ""
        yield f"it says {record.division} division, its recipe is {actual}{reason}"
    if too_long:
        yield f"epoch {too_long[0]} trained on more images than the training set has"


DATA = Check(
    "data",
    "every run read MNIST: the four known SHA-256 sums",
    "Run again with verified data: mnist-bench data.",
    for_each_record(_data),
)
PROTOCOL = Check(
    "protocol",
    f"target {QUALITY_TARGET:.1%}, protocol version {_KNOWN_PROTOCOLS}, evaluated on the test set",
    "Run again without --target-accuracy, with a recipe that evaluates on the test set.",
    for_each_record(_protocol),
)
LAPS = Check(
    "laps",
    "counts and times agree: epochs, images, evaluations, time to target",
    "Records must not be edited: restore the file as the run wrote it, or run again.",
    for_each_record(find_contradictions),
)
DIVISION = Check(
    "division",
    "the division is closed for the reference recipe and open for any other",
    "Run again: the division follows from the recipe and is not chosen.",
    for_each_record(_division),
)
