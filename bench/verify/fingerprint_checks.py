"""The check `fingerprint`: the same code with the same seed trains to the same losses.

Compiled kernels give the same losses on any number of threads, and torch's operators on one CPU
thread. So a run that another record repeats cannot have been changed in one of them only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import get_args

from bench.records.machine_key import MachineKey, MachineRelation
from bench.records.schema import RunRecord
from bench.text import count_of
from bench.verify.checks import Check, CheckFinding, ResultsFolder
from mnist_cnn.recipe import NativeKernels

_LEAST_VALUES = 3
"""Number of different values from which two runs cannot have them all by chance."""
_EXACT_KERNELS = get_args(NativeKernels)


def fingerprint_key(record: RunRecord) -> Hashable | None:
    """Equal for runs that must train to equal losses; None where nothing promises that."""
    setup, environment = record.setup, record.environment
    one_thread = setup.kernels == "torch" and setup.threads == 1
    if setup.device != "cpu" or not (setup.kernels in _EXACT_KERNELS or one_thread):
        return None
    if environment.commit is None or environment.dirty is not False:
        return None
    return (
        (environment.commit, environment.torch, environment.cpu, tuple(environment.cpu_features)),
        (setup.kernels, setup.precision, setup.processes, setup.machines),
        tuple(sorted((name, str(value)) for name, value in record.recipe.items())),
        record.seed,
    )


def find_difference(record: RunRecord, other: RunRecord) -> str | None:
    """Where two runs with equal keys part, as far as both went; None if they do not."""
    for trained, again in zip(record.epochs, other.epochs, strict=False):
        if (trained.epoch, trained.samples, trained.loss) != (
            again.epoch,
            again.samples,
            again.loss,
        ):
            return f"its training loss of epoch {trained.epoch} is {trained.loss}, not {again.loss}"
    evaluations = {evaluation.epoch: evaluation for evaluation in other.evaluations}
    for evaluation in record.evaluations:
        repeated = evaluations.get(evaluation.epoch)
        if repeated is not None and repeated != evaluation:
            return (
                f"epoch {evaluation.epoch} had {evaluation.correct} of {evaluation.samples} right, "
                f"not {repeated.correct}, or another loss"
            )
    return None


def same_code(record: RunRecord, other: RunRecord) -> bool:
    """Whether nothing that is known of code and machine differs."""
    here, there = record.environment, other.environment
    digests = (
        (here.source_sha256, there.source_sha256),
        (here.library_sha256, there.library_sha256),
    )
    if any(a is not None and b is not None and a != b for a, b in digests):
        return False
    return MachineKey.of(here).relation(MachineKey.of(there)) is not MachineRelation.DIFFERENT


def _find_other_losses(folder: ResultsFolder) -> Iterator[CheckFinding]:
    known: dict[Hashable, list[tuple[str, RunRecord]]] = {}
    for name, record in folder.committed:
        if (key := fingerprint_key(record)) is not None:
            known.setdefault(key, []).append((name, record))
    yield from _copies(folder)
    for name, record in folder.records:
        key = fingerprint_key(record)
        if key is None:
            continue
        others = known.setdefault(key, [])
        yield from _differences(name, record, others)
        others.append((name, record))


def _copies(folder: ResultsFolder) -> Iterator[CheckFinding]:
    """Records with the times of another run, or with the losses of another seed."""
    by_laps: dict[Hashable, str] = {}
    by_losses: dict[Hashable, tuple[int, str]] = {}
    own = {name for name, _ in folder.records}
    for name, record in (*folder.committed, *folder.records):
        laps = tuple(lap.seconds for lap in record.laps)
        if len(set(laps)) >= _LEAST_VALUES:
            other = by_laps.setdefault(laps, name)
            if other != name and name in own:
                yield CheckFinding(f"{name}: its laps are those of {other}, to the last digit")
        losses = tuple(epoch.loss for epoch in record.epochs)
        if len(set(losses)) >= _LEAST_VALUES:
            seed, other = by_losses.setdefault(losses, (record.seed, name))
            if seed != record.seed and name in own:
                yield CheckFinding(f"{name}: its losses are those of {other}, of another seed")


def _differences(
    name: str, record: RunRecord, others: Sequence[tuple[str, RunRecord]]
) -> Iterator[CheckFinding]:
    """The first of the other records, of the same key, that the record differs from."""
    for other_name, other in others:
        if same_code(record, other) and (difference := find_difference(record, other)):
            yield CheckFinding(
                f"{name}: {difference} as in {other_name}, of the same code and seed"
            )
            return


def _count_fingerprints(folder: ResultsFolder) -> Iterator[str]:
    keys = [key for _, record in folder.records if (key := fingerprint_key(record)) is not None]
    elsewhere = {fingerprint_key(record) for _, record in folder.committed}
    counts = Counter(keys)
    repeated = sum(counts[key] > 1 or key in elsewhere for key in keys)
    yield (
        f"{repeated} of {count_of(len(folder.records), 'record')} can be compared with another of "
        "the same code and seed"
    )


FINGERPRINT = Check(
    "fingerprint",
    "runs of the same code, kernels and seed trained to equal losses, here and among the records "
    "of this checkout",
    "Records must not be edited: restore the file as the run wrote it, or run again.",
    _find_other_losses,
    _count_fingerprints,
)
