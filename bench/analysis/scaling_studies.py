"""Finds scaling studies: benchmarks that differ only in the number of processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from bench import text
from bench.analysis import labels, metrics
from bench.analysis.benchmarks import Benchmark
from bench.analysis.metrics import completed
from bench.analysis.scaling import ScalingMode, ScalingPoint, ScalingStudy
from bench.analysis.setup_key import SetupKey
from bench.records.schema import RunRecord
from bench.stats import amdahl
from bench.stats.amdahl import Amdahl
from bench.stats.intervals import Estimate

NOTHING = (
    "no recipe was measured with several process counts and otherwise alike (on a CPU, with as "
    "many threads a process)"
)
"""What to say where there is no study."""
_EQUAL = (
    *("folder", "label", "machine", "recipe"),
    *("environment.commit", "environment.dirty", "environment.torch", "environment.version"),
    *("protocol.stop_at_target", "protocol.target_accuracy"),
    *("setup.captured", "setup.device", "setup.device_name", "setup.kernels"),
    *("setup.parallel_seeds", "setup.precision"),
)
"""Fields of `SetupKey` that are equal in all runs of a study; on a CPU, the threads are too."""
_GROWING = ("recipe.batch_size", "recipe.peak_learning_rate")
"""Fields of a recipe that grow with the processes in weak scaling."""


def scaling_studies(benchmarks: Sequence[Benchmark]) -> list[ScalingStudy]:
    """The studies that benchmarks make: strong scaling first, then weak.

    On a CPU, a study has one number of threads per process. The runs on one machine are a study,
    and so are the runs with one number of processes per machine, of which one machine is the first.

    Args:
        benchmarks: pooled, so that each holds all runs of its set-up.
    """
    timed = [
        (index, benchmark)
        for index, benchmark in enumerate(benchmarks)
        if _seconds_per_image(benchmark)
    ]
    studies: list[tuple[bool, int, int, ScalingStudy]] = []
    for mode in ScalingMode:
        groups: dict[tuple[int, object], list[int]] = {}
        for index, benchmark in timed:
            key = _study_key(benchmark, mode)
            if not _on_several_machines(benchmark):
                groups.setdefault((0, key), []).append(index)
            groups.setdefault((_processes_per_machine(benchmark), key), []).append(index)
        for (per_machine, _), indices in groups.items():
            several = any(_on_several_machines(benchmarks[index]) for index in indices)
            if per_machine and not several:
                continue
            by_count: dict[int, list[int]] = {}
            for index in indices:
                by_count.setdefault(_first(benchmarks[index]).setup.processes, []).append(index)
            if len(by_count) > 1:
                study = _study(mode, benchmarks, dict(sorted(by_count.items())))
                studies.append((mode is ScalingMode.WEAK, study.first, per_machine, study))
    return [study for *_, study in sorted(studies, key=lambda entry: entry[:3])]


def _study(
    mode: ScalingMode, benchmarks: Sequence[Benchmark], by_count: dict[int, list[int]]
) -> ScalingStudy:
    pools = {
        count: Benchmark(tuple(run for index in indices for run in benchmarks[index].runs))
        for count, indices in by_count.items()
    }
    seconds = {count: _seconds_per_image(pool) for count, pool in pools.items()}
    fit: Amdahl | str
    if mode is ScalingMode.WEAK:
        fit = "Amdahl's law is of a problem that stays as it is (strong scaling)"
    else:
        fit = amdahl.fit_amdahl(seconds)
    fewest = min(pools)
    return ScalingStudy(
        mode=mode,
        name=_name(mode, list(pools.values())),
        points=tuple(_point(pool, seconds, fewest) for pool in pools.values()),
        first=by_count[fewest][0],
        fit=None if isinstance(fit, str) else fit,
        no_fit=fit if isinstance(fit, str) else None,
    )


def _point(pool: Benchmark, seconds: dict[int, list[float]], fewest: int) -> ScalingPoint:
    record = _first(pool)
    setup, batch = record.setup, record.recipe.get("batch_size")
    known_shares = [
        share
        for run in completed(pool.records)
        if (share := metrics.all_reduce_share(run)) is not None
    ]
    speedup = amdahl.speedup(seconds[fewest], seconds[setup.processes])
    if setup.processes == fewest:
        speedup = Estimate(1.0, None, None)  # with itself; ranks would give it an interval
    return ScalingPoint(
        pool=pool,
        processes=setup.processes,
        batch_size=batch if isinstance(batch, int) else None,
        runs=len(seconds[setup.processes]),
        speedup=speedup,
        efficiency=amdahl.efficiency(speedup, fewest, setup.processes),
        communication_share=median(known_shares) if known_shares else None,
        oversubscribed=setup.device == "cpu"
        and setup.processes * setup.threads > record.environment.usable_cores,
    )


def _study_key(benchmark: Benchmark, mode: ScalingMode) -> object:
    """Equal for benchmarks that differ only in the number of processes, by the mode's rules."""
    path, record = benchmark.runs[0]
    threads = ("setup.threads",) if record.setup.device == "cpu" else ()
    key = SetupKey.of(record, path, only=(*_EQUAL, *threads))
    if mode is ScalingMode.STRONG:
        return key
    batch = record.recipe.get("batch_size")
    # Weak scaling keeps the batch of each process.
    share = batch / record.setup.processes if isinstance(batch, int) else None
    return share, key.ignoring(*_GROWING)


def _on_several_machines(benchmark: Benchmark) -> bool:
    return _first(benchmark).setup.machines > 1


def _processes_per_machine(benchmark: Benchmark) -> int:
    setup = _first(benchmark).setup
    return setup.processes // setup.machines


def _first(benchmark: Benchmark) -> RunRecord:
    return benchmark.runs[0][1]


def _seconds_per_image(benchmark: Benchmark) -> list[float]:
    """Seconds per image of each completed run that has a speed."""
    rates = (metrics.images_per_second(record) for record in completed(benchmark.records))
    return [1 / rate for rate in rates if rate and 0 < 1 / rate < math.inf]


def _name(mode: ScalingMode, pools: Sequence[Benchmark]) -> str:
    record = _first(pools[0])
    setup, recipe = record.setup, record.recipe.get("name")
    threads = setup.threads if setup.device == "cpu" else None
    parts = [f"{mode} scaling of {recipe if isinstance(recipe, str) else 'an unnamed recipe'}"]
    if mode is ScalingMode.WEAK:
        parts.append(_learning_rates(pools))
    if record.label:
        parts.append(f"“{record.label}”")
    if any(map(_on_several_machines, pools)):
        parts.append(f"machines of {text.count_of(_processes_per_machine(pools[0]), 'process')}")
    parts.append(labels.setup_label(None, threads, setup.precision, setup.computed_by))
    return text.printable(", ".join(filter(None, [*parts, setup.device_name])))


def _learning_rates(pools: Sequence[Benchmark]) -> str:
    """``"peak learning rates 0.6 to 1.2"``: the rates that grew with the batch."""
    rates = [_first(pool).recipe.get("peak_learning_rate") for pool in pools]
    numbers = [float(rate) for rate in rates if isinstance(rate, int | float)]
    return f"peak learning rates {min(numbers):g} to {max(numbers):g}" if numbers else ""
