"""The time to target of one record by four timing rules, and what each rule leaves out.

A time to target depends on a rule. A comparison with a published number needs the rule of that
number, and must show what the rule does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.analysis.metrics import time_to_target_seconds
from bench.records.schema import LapKind, RunRecord
from bench.stats.summary import summarize
from bench.stats.sums import exact_sum


class TimingRule(StrEnum):
    """A convention of what counts towards the time to target."""

    COLD = "cold"
    """Everything from the start of the process: what a user waits who starts from nothing."""
    MLPERF = "MLPerf"
    """From the first touch of the data to the evaluation that reached the target, never paused
    (MLPerf training rules, "Run Results"). This benchmark's own rule, but for what docs/protocol.md
    lists."""
    ALGOPERF = "AlgoPerf"
    """MLPerf's rule, paused during evaluation (AlgoPerf, Dahl et al. 2023, section 4.2)."""
    SPEEDRUN = "speed-run"
    """Training only, warm (airbench, Jordan 2024; modded-nanogpt)."""


class Span(StrEnum):
    """What the seconds up to the target were spent on."""

    STARTUP = "start-up"
    WARMUP = "warm-up"
    INIT = "init"
    TRAIN = "training"
    EVAL = "evaluation"
    CHECKPOINT = "checkpoints"
    BETWEEN = "time between laps"
    """What the harness itself took."""


_SPAN_OF_LAP = {
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
    """The time to target by one rule: the median over runs."""

    clock: TimingRule
    seconds: float
    excluded: dict[Span, float]
    """Seconds that the rule does not count, by span; spans without any are left out."""


def seconds_by_span(record: RunRecord) -> dict[Span, float] | None:
    """All seconds from the start of the process to the target; None where it was not reached."""
    end = time_to_target_seconds(record)
    if end is None:
        return None
    seconds = dict.fromkeys(Span, 0.0)
    for lap in record.laps:
        if lap.start_seconds < end:
            seconds[_SPAN_OF_LAP[lap.kind]] += lap.seconds
    after_start = (Span.INIT, Span.TRAIN, Span.EVAL, Span.CHECKPOINT)
    in_laps = exact_sum(seconds[span] for span in after_start)
    seconds[Span.BETWEEN] = max(0.0, end - in_laps)
    return seconds


def timed_results(records: Sequence[RunRecord]) -> list[TimedResult]:
    """The time to target by each rule, over the runs that reached it; empty where none did.

    A run's time is the sum of its counted spans. A median of sums is not a sum of medians, so each
    time is the median over runs of their sums.
    """
    runs = [spans for record in records if (spans := seconds_by_span(record)) is not None]
    if not runs:
        return []
    results = []
    for rule, counted in _COUNTED.items():
        total = summarize([exact_sum(spans[span] for span in counted) for spans in runs]).median
        excluded = {
            span: median
            for span in Span
            if span not in counted and (median := summarize([run[span] for run in runs]).median)
        }
        if total is not None:
            results.append(TimedResult(rule, total, excluded))
    return results
