"""What a record's load says against its times: a suspended run, a changed allowance, odd counters.

Each function looks at one run. What an old record did not store is no evidence.
"""

from __future__ import annotations

from bench.records.schema import RunRecord

SUSPENDED_SHARE = 0.35
"""Share of the time of a run's threads that neither they nor other programs used, above which the
run was suspended. The largest share of the records in results/ is 0.17."""

MOST_THREADS = 4
"""Number of threads up to which that share is judged: many threads often wait for each other."""

STOPPED_SHARE = 0.1
"""Share of the elapsed time in which not one thread of a run could have run, as above."""

LEAST_STOPPED_SECONDS = 1.0
"""Seconds without any work below which a run was not suspended."""

QUOTA_SHARE = 0.01
"""Share of a run's time in which a quota may have stopped its threads without a warning."""

COUNTER_SHARE, COUNTER_SECONDS = 0.1, 0.5
"""What counters may disagree by, as a share and in seconds: the kernel counts a process's time more
exactly than a core's. The largest disagreement of the records in results/ is 5 %."""


def suspended(record: RunRecord) -> bool:
    """Whether nothing ran for a part of the run: its CPU time is far below the elapsed time.

    Always one thread of a run on a CPU wants to run. Where none does, all cores must have been busy
    with other programs. Known only for a CPU and one machine.
    """
    load, setup = record.load, record.setup
    if setup.device != "cpu" or setup.machines > 1 or load.own_seconds is None:
        return False
    if load.busy_seconds is None:
        return False
    elapsed, own = load.elapsed_seconds, load.own_seconds
    others = max(0.0, load.busy_seconds - own)
    cores = load.usable_cores_before or record.environment.usable_cores
    without_any_thread = elapsed - own - others / cores
    if without_any_thread > max(LEAST_STOPPED_SECONDS, STOPPED_SHARE * elapsed):
        return True
    threads = min(cores, setup.threads * setup.processes)
    unused = threads * elapsed - own - others
    return (
        threads <= MOST_THREADS
        and unused > SUSPENDED_SHARE * threads * elapsed
        and unused > LEAST_STOPPED_SECONDS * threads
    )


def allowance_changed(record: RunRecord) -> bool:
    """Whether affinity or quota were not the same at both ends of the run."""
    load = record.load
    return (load.usable_cores_before, load.quota_cores_before) != (
        load.usable_cores_after,
        load.quota_cores_after,
    )


def quota_throttled(record: RunRecord) -> bool:
    """Whether a control group's quota stopped threads for more than a moment."""
    load = record.load
    return (
        load.throttled_seconds is not None
        and load.throttled_seconds > QUOTA_SHARE * load.elapsed_seconds
    )


def impossible_load(record: RunRecord) -> bool:
    """Whether the counters of CPU time contradict each other or the elapsed time."""
    load, cores = record.load, record.environment.logical_cores
    available = load.elapsed_seconds * cores
    if load.own_seconds is not None and _exceeds(load.own_seconds, available):
        return True
    if load.busy_seconds is None:
        return False
    if _exceeds(load.busy_seconds, load.elapsed_seconds * (load.usable_cores_before or cores)):
        return True
    return load.own_seconds is not None and _exceeds(load.own_seconds, load.busy_seconds)


def _exceeds(seconds: float, limit: float) -> bool:
    return seconds > (1 + COUNTER_SHARE) * limit + COUNTER_SECONDS
