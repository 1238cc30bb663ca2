"""The check `seeds`: every benchmark has all its runs, each with its seed, none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise

from bench.analysis import benchmarks, metrics
from bench.records import sweep_plan
from bench.records.benchmark_plan import PLANNED_SINCE, SeedsRule, seeds_rule
from bench.records.machine_key import MachineKey
from bench.records.schema import LapKind, RunRecord, Status
from bench.records.sidecars import find_sidecars
from bench.stats.stopping import precise_enough
from bench.text import printable
from bench.verify.checks import Check, CheckFinding, ResultsFolder
from bench.verify.recorded_command import option_value

_CLOCK_TOLERANCE_SECONDS = 2.0
"""Largest correction of a wall clock between two runs that is not taken for an overlap."""
_RULED_RUNS = 3
"""Number of runs from which a benchmark supports an interval, so its seeds must follow a rule."""
_SHOWN_GAPS = 10
_MOST_DIGITS = 20
"""Number of digits of a seed from which it is no seed."""
_ENDED_EARLY = (Status.INTERRUPTED, Status.FAILED)


def _find_seed_problems(folder: ResultsFolder) -> Iterator[CheckFinding]:
    by_benchmark: dict[str, list[RunRecord]] = {}
    for _, record in folder.records:
        by_benchmark.setdefault(record.benchmark_id, []).append(record)
    for benchmark_id, records in by_benchmark.items():
        for problem in _benchmark_problems(sorted(records, key=_run_order)):
            yield CheckFinding(f"benchmark {printable(benchmark_id)[:8]}: {problem}")
    for entry in folder.entries:
        records = entry.benchmark.records
        if records[0].protocol.runs == 1:
            for problem in _single_run_problems(records):
                yield CheckFinding(
                    f"runs like {printable(entry.id)}, started one by one: {problem}"
                )
    for path in find_sidecars([folder.path], sweep_plan.SWEEP_SUFFIX):
        records = [record for file, record in folder.contents.records if file.parent == path.parent]
        with suppress(OSError, ValueError):  # the check of files reports an unreadable plan
            for run in sweep_plan.missing_runs(path, sweep_plan.read_sweep_plan(path), records):
                yield CheckFinding(f"{folder.name(path)}: no record of its run {printable(run)}")


def _run_order(record: RunRecord) -> tuple[int, datetime]:
    """Sorts by run, and the attempts at one run (it was interrupted and resumed) by their start."""
    return record.run_index, record.started_utc


def _benchmark_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is wrong with the runs that one command started.

    Args:
        records: in the order of `_run_order`.
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
    yield from _rule_problems(records)
    # With --parallel-seeds the processes take turns, and each makes its runs one after the other.
    at_a_time = records[0].setup.parallel_seeds
    for process in sorted({(record.run_index - 1) % at_a_time for record in records}):
        own = [record for record in records if (record.run_index - 1) % at_a_time == process]
        yield from _overlaps(own)


def _overlaps(records: Sequence[RunRecord]) -> Iterator[str]:
    """Runs of one process that overlap."""
    for before, after in pairwise(records):
        seconds_apart = (after.started_utc - before.started_utc).total_seconds()
        if seconds_apart < before.load.elapsed_seconds - _CLOCK_TOLERANCE_SECONDS:
            yield f"run {after.run_index} started before run {before.run_index} had ended"


def _index_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """Which runs of a benchmark are missing, repeated or too many."""
    last = records[-1]
    expected = last.run_index if last.status in _ENDED_EARLY else _expected_runs(records)
    indices = [record.run_index for record in records]
    if missing := missing_numbers(set(indices), 1, expected):
        yield f"run {missing} of {expected} is not here"
    # An attempt that was interrupted may have left a record too: it is no repetition.
    attempts = Counter(r.run_index for r in records if not _is_superseded(r, records))
    if repeated := [index for index, count in attempts.items() if count > 1]:
        yield f"run {', '.join(map(str, repeated))} is here more than once"
    if max(indices) > last.protocol.runs:
        yield f"run {max(indices)} is here, but the benchmark has only {last.protocol.runs}"


def _is_superseded(record: RunRecord, records: Sequence[RunRecord]) -> bool:
    """Whether a run ended early and another record resumed it."""
    return record.status in _ENDED_EARLY and any(
        other.run_index == record.run_index and other.resumed > record.resumed for other in records
    )


def _expected_runs(records: Sequence[RunRecord]) -> int:
    """Number of runs that a benchmark must have; its last run here did not end early.

    With --runs auto: those that are here, and one more where the rule would not have stopped.
    """
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
    may_stop = all(train_seconds) and precise_enough(
        protocol.half_width, protocol.budget_seconds, train_seconds, run_seconds
    )
    return last_index if may_stop else min(protocol.runs, last_index + 1)


def _single_run_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is wrong with runs of one set-up that were started one by one: each is a benchmark."""
    seeds = {record.seed for record in records}
    if missing := missing_numbers(seeds, min(seeds), max(seeds)):
        yield f"seed {missing} of {min(seeds)} to {max(seeds)} is not here"
    completed = Counter(record.seed for record in metrics.completed(records))
    if repeated := sorted(seed for seed, count in completed.items() if count > 1):
        yield f"seed {', '.join(map(str, repeated))} is here more than once"


def missing_numbers(present: Collection[int], first: int, last: int) -> str:
    """The numbers from first to last that are not present, in words; empty where all are.

    ``"3, 5 to 9"``: a stranger's record may name a billion of them, so none is listed by itself.
    """
    edges = [first - 1, *sorted(n for n in set(present) if first <= n <= last), last + 1]
    gaps = [(low + 1, high - 1) for low, high in pairwise(edges) if high - low > 1]
    named = [str(low) if low == high else f"{low} to {high}" for low, high in gaps[:_SHOWN_GAPS]]
    return ", ".join(named) + (" and more" if len(gaps) > _SHOWN_GAPS else "")


def _rule_problems(records: Sequence[RunRecord]) -> Iterator[str]:
    """Whether the seeds of a benchmark follow from a rule; older records had none to follow."""
    record = records[0]
    if record.schema_version < PLANNED_SINCE or record.protocol.runs < _RULED_RUNS:
        return
    first_seed = record.seed - record.run_index + 1
    machine = MachineKey.of(record.environment).digest
    if seeds_rule(first_seed, record.environment.commit, machine) is SeedsRule.BY_HAND:
        yield (
            f"its seeds begin at {first_seed} and follow no rule: leave --seed out, or take what "
            "follows from commit and machine key"
        )


def declared_seed(command: Sequence[str]) -> int:
    """The value of --seed in a `run` command; 0, the default, without one that is a number."""
    seed = option_value(command, "--seed") or "0"
    return int(seed) if seed.isdecimal() and len(seed) < _MOST_DIGITS else 0


SEEDS = Check(
    "seeds",
    "every benchmark has all its runs, up to one that was interrupted or failed, each with the "
    "seed of its command, none twice; from 3 runs on (and version 8) the first seed is 0 or "
    "follows from commit and machine key",
    "Put back the missing records, or finish the sweep. Repeated runs of a seed belong in another "
    "folder.",
    _find_seed_problems,
)
