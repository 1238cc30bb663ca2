"""The check `plausible`: no record claims more than its machine can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.analysis import metrics
from bench.records.schema import RunRecord
from bench.records.sidecars import TRAINING_FLOPS, PeakFlops, find_peak_flops, read_peak_flops
from bench.text import count_of, printable, quantity
from bench.verify.checks import Check, CheckFinding, ResultsFolder

_SLACK_SHARE = 1.05
"""Counters of CPU time tick more coarsely than clocks."""
_SLACK_SECONDS = 0.5
_OWN_SHARE = 1.15
"""Own CPU time above the busy time of all cores: both are sampled, and up to 6 % are usual where
processes come and go."""


def _find_implausible(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for name, record in folder.records:
        for problem in _load_problems(record):
            yield CheckFinding(f"{name}: {problem}")
    for path, record, limit in _with_peaks(folder):
        rate = metrics.images_per_second(record)
        if limit is not None and rate is not None and rate * TRAINING_FLOPS > limit:
            share = rate * TRAINING_FLOPS / limit
            yield CheckFinding(
                f"{folder.name(path)}: {quantity(rate)} images/s need {share:.2f} times the peak "
                f"that was measured of {printable(record.setup.device_name)}"
            )


def _count_known(folder: ResultsFolder) -> Iterator[str]:
    """For how many records there is something to compare with."""
    records = folder.contents.records
    loads = sum(record.load.own_seconds is not None for _, record in records)
    peaks = sum(limit is not None for _, _, limit in _with_peaks(folder))
    known = count_of(len(records), "record")
    yield f"{loads} of {known} with a CPU time, {peaks} with a peak beside"


def _with_peaks(folder: ResultsFolder) -> Iterator[tuple[Path, RunRecord, float | None]]:
    """Each record with its file and the peak of its set-up that lies beside it, if any."""
    peaks: dict[Path, list[PeakFlops]] = {}
    for path, record in folder.contents.records:
        if path.parent not in peaks:
            peaks[path.parent] = read_peak_flops([path])[0]
        yield path, record, find_peak_flops(record, peaks[path.parent])


def _load_problems(record: RunRecord) -> Iterator[str]:
    """CPU time against what the cores can give in the time."""
    load, environment = record.load, record.environment
    counts = (environment.usable_cores, load.usable_cores_before, load.usable_cores_after)
    usable = max(count for count in counts if count is not None)
    elapsed = load.elapsed_seconds
    for what, seconds, cores in (
        ("CPU time of its own", load.own_seconds, max(usable, 1)),
        ("busy CPU time", load.busy_seconds, max(environment.logical_cores, usable)),
    ):
        if seconds is not None and seconds > cores * elapsed * _SLACK_SHARE + _SLACK_SECONDS:
            yield (
                f"{quantity(seconds)} s of {what} in {quantity(elapsed)} s on {cores} cores, which "
                f"have {quantity(cores * elapsed)} s"
            )
    own, busy = load.own_seconds, load.busy_seconds
    if own is not None and busy is not None and own > busy * _OWN_SHARE + _SLACK_SECONDS:
        yield f"{quantity(own)} s of CPU time of its own; all cores were busy {quantity(busy)} s"


PLAUSIBLE = Check(
    "plausible",
    "CPU time fits the cores and the time; images/s are below the peak that lies beside, if any",
    "Records must not be edited: restore the file as the run wrote it, or run again.",
    _find_implausible,
    _count_known,
)
