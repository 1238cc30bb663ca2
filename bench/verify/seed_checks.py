"""The check of runs together: every benchmark has all its runs, each with its seed, none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise

from bench.analysis import benchmarks, metrics
from bench.records import sidecars, sweep_plan
from bench.records.schema import LapKind, RunRecord, Status
from bench.stats.stopping import precise_enough
from bench.text import printable
from bench.verify.checks import Check, CheckFinding, ResultsFolder

_CLOCK_TOLERANCE_SECONDS = 2.0
"""Time by which a machine's wall clock may be set back between two runs."""
_ENDED_EARLY = (Status.INTERRUPTED, Status.FAILED)


def _seeds(folder: ResultsFolder) -> Iterator[CheckFinding]:
    by_benchmark: dict[str, list[RunRecord]] = {}
    for _, record in folder.records:
        by_benchmark.setdefault(record.benchmark_id, []).append(record)
    for benchmark_id, records in by_benchmark.items():
        for problem in _benchmark_problems(sorted(records, key=_order)):
            yield CheckFinding(f"benchmark {printable(benchmark_id)[:8]}: {problem}")
    for entry in folder.entries:
        records = entry.benchmark.records
        if records[0].protocol.runs == 1:
            for problem in _single_run_problems(records):
                yield CheckFinding(
                    f"runs like {printable(entry.id)}, started one by one: {problem}"
                )
    for path in sidecars.find_sidecars([folder.path], sweep_plan.SWEEP_SUFFIX):
        records = [record for file, record in folder.contents.records if file.parent == path.parent]
        with suppress(OSError, ValueError):  # the check of files reports an unreadable plan
            for run in sweep_plan.missing_runs(path, sweep_plan.read_sweep_plan(path), records):
                yield CheckFinding(f"{folder.name(path)}: no record of its run {printable(run)}")


def _order(record: RunRecord) -> tuple[int, datetime]:
    """The order of the runs of a benchmark, and of the attempts at a run."""
    return record.run_index, record.started_utc


def _benchmark_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is wrong with the runs that one command started.

    Args:
        records: in the order of `_order`.
    """
    if len(benchmarks.group_runs((None, record) for record in records)) > 1:
        yield "its runs differ in set-up, recipe, protocol, label or commit"
    yield from _index_problems(records)
    for record in records:
        first_seed = declared_seed(record.command)
        expected_seed = first_seed + record.run_index - 1
        if record.seed != expected_seed:
            yield (
                f"run {record.run_index} has seed {record.seed}; its command starts at "
                f"{first_seed}, so {expected_seed} was expected"
            )
    if any(record.setup.parallel_seeds > 1 for record in records):
        return  # such runs overlap
    for before, after in pairwise(records):
        seconds_apart = (after.started_utc - before.started_utc).total_seconds()
        if seconds_apart < before.load.elapsed_seconds - _CLOCK_TOLERANCE_SECONDS:
            yield f"run {after.run_index} started before run {before.run_index} had ended"


def _index_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """Which runs of a benchmark are missing, repeated or too many."""
    last = records[-1]
    promised = last.run_index if last.status in _ENDED_EARLY else _promised_runs(records)
    indices = [record.run_index for record in records]
    missing = sorted(set(range(1, promised + 1)) - set(indices))
    if missing:
        yield f"run {', '.join(map(str, missing))} of {promised} is not here"
    # A resumed run has a record of each attempt that could write one.
    attempts = Counter(r.run_index for r in records if not _is_superseded(r, records))
    if repeated := [index for index, count in attempts.items() if count > 1]:
        yield f"run {', '.join(map(str, repeated))} is here more than once"
    if max(indices) > last.protocol.runs:
        yield f"run {max(indices)} of {last.protocol.runs}"


def _is_superseded(record: RunRecord, records: Sequence[RunRecord]) -> bool:
    """Whether a run ended early and another record resumed it."""
    return record.status in _ENDED_EARLY and any(
        other.run_index == record.run_index and other.resumed > record.resumed for other in records
    )


def _promised_runs(records: Sequence[RunRecord]) -> int:
    """Number of runs that a benchmark must have when its last run did not end early."""
    protocol, last_index = records[-1].protocol, records[-1].run_index
    if protocol.half_width is None:
        return protocol.runs
    train_seconds = [
        metrics.seconds_of(record, LapKind.TRAIN) or 0.0 for record in metrics.completed(records)
    ]
    run_seconds = [
        max((lap.start_seconds + lap.seconds for lap in record.laps), default=0)
        for record in records
    ]
    stopped = all(train_seconds) and precise_enough(
        protocol.half_width, protocol.budget_seconds, train_seconds, run_seconds
    )
    return last_index if stopped else min(protocol.runs, last_index + 1)


def _single_run_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is wrong with runs that belong together, each a benchmark of its own."""
    seeds = {record.seed for record in records}
    if missing := sorted(set(range(min(seeds), max(seeds) + 1)) - seeds):
        yield f"seed {', '.join(map(str, missing))} of {min(seeds)} to {max(seeds)} is not here"
    completed = Counter(record.seed for record in metrics.completed(records))
    if repeated := sorted(seed for seed, count in completed.items() if count > 1):
        yield f"seed {', '.join(map(str, repeated))} is here more than once"


def declared_seed(command: Sequence[str]) -> int:
    """The first seed of a `run` command; 0, the default, when the command names none."""
    seed = "0"
    for word, value in zip(command, (*command[1:], ""), strict=True):
        if word == "--seed":
            seed = value
        elif word.startswith("--seed="):
            seed = word.partition("=")[2]
    return int(seed) if seed.isdecimal() and len(seed) < 20 else 0


SEEDS = Check(
    "seeds",
    "every benchmark has all its runs, each with the seed of its command, none twice",
    "Put back the missing records, or finish the sweep. Repeated runs of a seed belong in another "
    "folder.",
    _seeds,
)
