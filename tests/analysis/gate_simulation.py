"""Simulated gates: how often they pass, fire and cannot tell where the truth is known.

Real records and the real gate; simulated are the numbers in them. A seed and the rounding of the
kernels decide accuracy, losses and misses together, as they do in `results/`: equal seeds with
equal rounding are bit-equal, all others independent. Time is noise, and a shift by session.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

from bench.analysis.cases import CaseMatch, match_cases
from bench.analysis.compared_sides import ComparedSides
from bench.analysis.comparison import GATE_TAIL, Comparison
from bench.analysis.gate import GateOutcome, Limits, judge, overall_outcome
from bench.analysis.learning_comparison import IMAGE, compare_accuracy, compare_convergence
from bench.analysis.metrics import images_per_second
from bench.analysis.run_sets import RunSet
from bench.analysis.share_comparison import compare_share_reached
from bench.analysis.speed_comparison import compare_seconds_per_image
from bench.records.schema import Lap, LapKind, RunRecord
from bench.records.sidecars import NoiseFloor
from bench.stats.intervals import location_shift, mean_difference
from tests.factories import make_record

NOISE = 0.035
"""Standard deviation of the logarithm of one run's time: of a shared machine."""
MEAN_POINTS, POINTS_SPREAD = 99.43, 0.051
"""Accuracy of `fast` in results/studies/xeon-ab: mean and standard deviation, in points."""
SESSION_SHIFT = (0.04, 0.07)
"""By how much two sessions of one machine differ, at least and at most."""
CI_LIMITS = Limits(slower=0.10, less_accurate=0.05)
"""Those of docs/ci.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true of the new side, and what the gate is told."""

    runs: int
    """Runs per side."""
    slower: float = 1.0
    """Time of the new side, as a multiple of the base's."""
    loss_points: float = 0.0
    """Accuracy that the new side lacks, in percentage points."""
    first_seed: int | None = 0
    """First seed of the new side; None for others in each simulation."""
    rounding: str = "same"
    """Rounding of the new side's kernels; the base's is "same"."""
    sessions: bool = False
    """Whether the sides were measured in two sessions."""
    limits: Limits = CI_LIMITS
    floor: float = 0.0
    """The machine's noise floor."""
    cases: int = 1
    """Number of cases that the gate judges together."""


def outcomes(truth: Truth, times: int) -> Counter[GateOutcome]:
    """What the gate says, how often, in so many simulations."""
    return Counter(_simulate(truth, index) for index in range(times))


def side(
    number: int,
    runs: int,
    slower: float = 1.0,
    loss_points: float = 0.0,
    environment: dict[str, Any] | None = None,
) -> list[RunRecord]:
    """One side for tests: a benchmark of the seeds from 0 on, which learn the same in every side.

    Args:
        number: decides the times, the ids and when it was run.
        runs: number of runs.
        slower: time, as a multiple.
        loss_points: accuracy that it lacks, in percentage points.
        environment: fields of the environment that differ from the template's.
    """
    chance = random.Random(number)
    records = []
    for seed in range(runs):
        run = _run(chance, seed, 1000 * number + seed, slower=slower, loss_points=loss_points)
        fresh = {
            "benchmark_id": f"{number:032x}",
            "run_index": seed + 1,
            "protocol": run.protocol.model_copy(update={"runs": runs}),
            "environment": run.environment.model_copy(update=environment or {}),
        }
        records.append(RunRecord.model_validate(run.model_copy(update=fresh).model_dump()))
    return records


def _simulate(truth: Truth, index: int) -> GateOutcome:
    chance = random.Random(index)
    findings = []
    for case in range(truth.cases):
        base, new = _sides(truth, chance, 1000 * (1 + index * truth.cases + case))
        comparison = _compare(base, new, truth)
        findings += judge(CaseMatch((), (), ()), [comparison], truth.limits, _floors(truth.floor))
    return overall_outcome(findings)


def _sides(
    truth: Truth, chance: random.Random, first: int
) -> tuple[list[RunRecord], list[RunRecord]]:
    """The runs of both sides; `first` is the base's first seed."""
    shift = 1.0
    if truth.sessions:
        shift += chance.choice((-1, 1)) * chance.uniform(*SESSION_SHIFT)
    base = [_run(chance, first + n, n) for n in range(truth.runs)]
    new_first = first + (500 if truth.first_seed is None else truth.first_seed)
    new = [
        _run(
            chance,
            new_first + n,
            1000 + n,
            rounding=truth.rounding,
            slower=shift * truth.slower,
            loss_points=truth.loss_points,
        )
        for n in range(truth.runs)
    ]
    return base, new


def times_fired_before(truth: Truth, times: int) -> int:
    """How often, in the same simulations, the rule fired that did not look at seeds.

    Of sides one after the other: ranks for the time an image, Welch's t for accuracies, widened to
    an image each way (the gate of schema version 7).
    """
    return sum(
        _fired_before(*_sides(truth, random.Random(index), 1000 * (1 + index)), truth.limits)
        for index in range(times)
    )


def _fired_before(base: Sequence[RunRecord], new: Sequence[RunRecord], limits: Limits) -> bool:
    assert limits.slower is not None
    assert limits.less_accurate is not None
    base_logs, new_logs = (
        [-math.log(images_per_second(run) or 0.0) for run in side] for side in (base, new)
    )
    slower = location_shift(base_logs, new_logs, GATE_TAIL)
    base_points, new_points = (
        [100 * (run.final_accuracy or 0.0) for run in side] for side in (base, new)
    )
    change = mean_difference(base_points, new_points, GATE_TAIL)
    highest = max(change.high or 0.0, change.value + IMAGE) if change.high is not None else 0.0
    too_slow = slower.low is not None and slower.low > math.log1p(limits.slower)
    return too_slow or highest < -limits.less_accurate


def _compare(base: Sequence[RunRecord], new: Sequence[RunRecord], truth: Truth) -> Comparison:
    """What the gate judges of `compare_case`; the rest informs only, and takes long."""
    case = replace(_template_match().cases[0], all_base=tuple(base), all_new=tuple(new))
    sides = ComparedSides.of(case, truth.cases, truth.limits.slower or 0.05)
    lines = (
        compare_seconds_per_image(sides),
        compare_share_reached(sides),
        compare_accuracy(sides),
        compare_convergence(sides),
    )
    return Comparison(case, sides.paired, lines, sides.gate_tail)


@cache
def _template() -> RunRecord:
    return make_record(accuracies=(0.9945,), init_seconds=0.1, eval_seconds=0.1)


@cache
def _template_match() -> CaseMatch:
    other = _template().model_copy(update={"run_id": "f" * 32})
    return match_cases(RunSet("base", (_template(),)), RunSet("new", (other,)))


@cache
def _floors(relative: float) -> tuple[NoiseFloor, ...]:
    template = _template()
    floor = NoiseFloor(
        case=_template_match().cases[0].setup_name,
        relative=relative,
        rounds=18,
        measured_at=template.started_at,
        device_name=template.setup.device_name,
        commit=None,
        torch=template.environment.torch,
    )
    return (floor,) if relative else ()


def _run(
    chance: random.Random,
    seed: int,
    minute: int,
    *,
    rounding: str = "same",
    slower: float = 1.0,
    loss_points: float = 0.0,
) -> RunRecord:
    """A run whose seed and rounding decide what it learns, and chance how long it takes."""
    template = _template()
    seconds = 6.5 * slower * chance.lognormvariate(0, NOISE)
    fresh = {
        "run_id": f"{seed:016x}{minute:016x}",
        "started_at": template.started_at + timedelta(minutes=minute),
        "laps": [_lap(lap, seconds) for lap in template.laps],
    }
    return _learned(seed, rounding, loss_points).model_copy(update=fresh)


@cache
def _learned(seed: int, rounding: str, loss_points: float) -> RunRecord:
    """What a seed decides, which several simulations share: a run without its times."""
    template = _template()
    decided = random.Random(f"{seed} {rounding}")
    points = decided.gauss(MEAN_POINTS, POINTS_SPREAD) - loss_points
    correct = round(100 * points)
    evaluation = template.evaluations[0].model_copy(update={"correct": correct})
    epoch = template.epochs[0].model_copy(update={"loss": 1.5 * decided.lognormvariate(0, 0.005)})
    reached = correct / 10_000 >= template.protocol.target_accuracy
    fresh = {
        "seed": seed,
        "epochs": [epoch],
        "evaluations": [evaluation],
        "final_accuracy": correct / 10_000,
        "target_reached_epoch": 1 if reached else None,
    }
    return template.model_copy(update=fresh)


def _lap(lap: Lap, train_seconds: float) -> Lap:
    if lap.kind is not LapKind.TRAIN:
        return lap
    return lap.model_copy(update={"seconds": train_seconds})
