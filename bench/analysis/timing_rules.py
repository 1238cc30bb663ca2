"""One record, four clocks: what other benchmarks would have shown, and what each leaves out.

A time to target is a convention. Whoever compares with a published number needs that number's
convention, and must see what it does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.analysis.metrics import time_to_target_seconds
from bench.records.schema import LapKind, RunRecord
from bench.stats.summary import summarize


class TimingRule(StrEnum):
    """A convention of what is on the clock."""

    COLD = "cold"
    """Everything from the start of the process: what somebody waits who starts from nothing."""
    MLPERF = "MLPerf"
    """From the first touch of the data to the evaluation that reached the target, never paused
    (MLPerf training rules, "Timing"). This benchmark's own."""
    ALGOPERF = "AlgoPerf"
    """The same, paused while it is evaluated (AlgoPerf, Dahl et al. 2023, section 4.2)."""
    SPEEDRUN = "speed-run"
    """Training alone, warm (airbench, Jordan 2024; modded-nanogpt)."""


class Span(StrEnum):
    """What the seconds up to the target were spent on."""

    STARTUP = "start-up"
    WARMUP = "warm-up"
    INIT = "init"
    TRAIN = "training"
    EVAL = "evaluation"
    CHECKPOINT = "checkpoints"
    BETWEEN = "between"
    """Laps: what the harness itself took."""


_OF_LAP = {
    LapKind.STARTUP: Span.STARTUP,
    LapKind.WARMUP: Span.WARMUP,
    LapKind.INIT: Span.INIT,
    LapKind.TRAIN: Span.TRAIN,
    LapKind.EVAL: Span.EVAL,
    LapKind.CHECKPOINT: Span.CHECKPOINT,
    LapKind.RESUME: Span.INIT,
}
_COUNTED: dict[TimingRule, frozenset[Span]] = {
    TimingRule.COLD: frozenset(Span),
    TimingRule.MLPERF: frozenset(Span) - {Span.STARTUP, Span.WARMUP},
    TimingRule.ALGOPERF: frozenset(Span) - {Span.STARTUP, Span.WARMUP, Span.EVAL},
    TimingRule.SPEEDRUN: frozenset({Span.TRAIN}),
}


@dataclass(frozen=True, slots=True)
class TimedResult:
    """What a clock shows of one run, or of the median of several."""

    clock: TimingRule
    seconds: float
    excluded: dict[Span, float]
    """Seconds that it does not count, by what they were spent on; what took none is left out."""


def seconds_by_span(record: RunRecord) -> dict[Span, float] | None:
    """Every second from the start of the process to the target; None where it was not reached."""
    end = time_to_target_seconds(record)
    if end is None:
        return None
    seconds = dict.fromkeys(Span, 0.0)
    for lap in record.laps:
        if lap.start_seconds < end:
            seconds[_OF_LAP[lap.kind]] += lap.seconds
    on_the_clock = (Span.INIT, Span.TRAIN, Span.EVAL, Span.CHECKPOINT)
    timed = sum(seconds[item] for item in on_the_clock)
    seconds[Span.BETWEEN] = max(0.0, end - timed)
    return seconds


def timed_results(records: Sequence[RunRecord]) -> list[TimedResult]:
    """All four clocks of the runs that reached the target, each item's median; [] where none did.

    A run's clocks are sums of its items; medians of sums are not sums of medians, so each clock is
    the median over runs of its own sum.
    """
    runs = [items for record in records if (items := seconds_by_span(record)) is not None]
    if not runs:
        return []
    found = []
    for clock, counted in _COUNTED.items():
        total = summarize([sum(items[item] for item in counted) for items in runs]).median
        excluded = {
            item: median
            for item in Span
            if item not in counted and (median := summarize([r[item] for r in runs]).median)
        }
        if total is not None:
            found.append(TimedResult(clock, total, excluded))
    return found
