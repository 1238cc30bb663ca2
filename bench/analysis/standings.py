"""One row a machine and division: its newest official benchmark, by the best code that it has.

Official is what stands for a machine: a clean commit or a version, the seeds 0 to n-1, a whole
machine, enough runs, and times that are the machine's. Where a machine has no such benchmark in a
division, another one stands below the rest, with the reasons: today's recipe rather than another,
with enough runs rather than with fewer, the newest of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import column
from bench.analysis.device_numbers import MachineNumber, Source, machine_numbers
from bench.analysis.metrics import completed
from bench.analysis.relative_speed import RelativeSpeed, relative_speeds
from bench.analysis.result_warnings import MOST_BUSY_SHARE, ResultWarning, ranked
from bench.analysis.run_sets import RunSet
from bench.analysis.setup_key import recipe_name
from bench.analysis.step_code import uses_torch
from bench.analysis.units import (
    Unit,
    format_cell,
    format_estimate_interval,
    format_median_interval,
)
from bench.records.machine_key import MachineKey
from bench.records.protocol import QUALITY_TARGET
from bench.records.schema import RunRecord
from bench.stats.intervals import Estimate
from bench.stats.summary import FEWEST_RUNS
from bench.text import MISSING, count_of
from mnist_cnn.recipe import RECIPES

FEWEST_OPEN_CPU = 5
"""Runs of an official benchmark of the open division on a CPU."""
FEWEST = 3
"""The same of the closed division, and on other devices."""
HEADINGS = (
    "machine", "to 99.4 %", "a success", "times as long", "reached", "accuracy", "images/s",
    "by torch", "measured with",
)  # fmt: skip
"""The columns: the machine, the measured `values`, and what they were `measured_with`."""
CAPTION = (
    "One row a machine and division: its newest official benchmark, by other kernels than torch's "
    "where it has them, the fastest first. Official: a clean commit or a released version, the "
    f"seeds 0 to n-1, the whole machine, at least {FEWEST_OPEN_CPU} runs in the open division on "
    f"a CPU and {FEWEST} otherwise, a quarter of them disturbed by other work at most. Where a "
    "machine has none, its most complete other benchmark stands below the rest. A success: the "
    "seconds of all completed runs, misses included, for each that reached the target; a mean, "
    "where the other values are medians. By torch: images a second of the reference recipe by "
    "torch's operators, which every device has. Times as long: than the division's first row, by "
    "the times to target; by the seconds a success, where a run of the two rows missed it. 95 % "
    "intervals where there are enough runs."
)
"""What the rows and columns are, for a reader."""
OTHER_RECIPE = "\u2020"
"""Mark of a row whose recipe is not what it is here today."""
_BY_MACHINE = frozenset({"memory_format", "pipeline"})
"""Values of a recipe that a device or an option decides, and that do not change what is learned."""
_BEFORE_FIELDS: dict[str, float] = {"selected_share": 1.0}
"""What runs had before their records had the field, where it was not 0."""

_HARMLESS = frozenset(
    {
        ResultWarning.FELL_BACK,
        ResultWarning.MISSED_TARGET,
        ResultWarning.OUTLIER,
        ResultWarning.SLOW_FIRST_RUN,
        ResultWarning.AUTOCORRELATED,
        ResultWarning.TWO_GROUPS,
        ResultWarning.DRIFT,
    }
)
"""Warnings about the scatter of the times, or about what the row shows itself."""


class Shown(NamedTuple):
    """A value for people, and its 95 % interval; empty where there is none."""

    value: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A machine's row in a division."""

    source: str
    """Name by which a reader finds the benchmark; may be empty."""
    benchmark: Benchmark
    machine: str
    """The device's name, and the machine's key where it is known."""
    reasons: tuple[str, ...]
    """Why the benchmark is not official; empty for an official one."""
    torch: MachineNumber | None
    """Images a second of the reference recipe by torch's operators; None where not measured."""
    relative: RelativeSpeed
    """Its speed relative to the first row of the division."""

    @property
    def is_official(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    @property
    def has_other_recipe(self) -> bool:
        """Whether it trained by other values than its recipe has here and today."""
        return not has_todays_recipe(self.benchmark.records[0])

    @property
    def name(self) -> str:
        """The machine, and the mark of another recipe."""
        return f"{self.machine} {OTHER_RECIPE}" if self.has_other_recipe else self.machine

    @property
    def remark(self) -> str:
        """What speaks against it, to follow the machine's name."""
        return f"is not official: {'; '.join(self.reasons)}."

    @property
    def measured_with(self) -> str:
        """The recipe and the set-up."""
        record = self.benchmark.records[0]
        return f"{record.recipe['name']}, {labels.label_of_record(record)}"

    @property
    def values(self) -> tuple[Shown, ...]:
        """What was measured, in the order of `HEADINGS`."""
        benchmark = self.benchmark
        return (
            self._summary("time_to_target_seconds"),
            _shown(benchmark.seconds_per_success, Unit.SECONDS),
            _shown(_times_as_long(self.relative), Unit.RATE),
            Shown(f"{benchmark.reached}/{len(benchmark.runs)}"),
            self._summary("final_accuracy"),
            self._summary("images_per_second"),
            Shown(MISSING if self.torch is None else self.torch.text),
        )

    def _summary(self, name: str) -> Shown:
        unit, summary = column(name).unit, self.benchmark.summary(name)
        interval = format_median_interval(summary, unit)
        return Shown(format_cell(summary.median, unit), interval or "")


def _shown(estimate: Estimate | None, unit: Unit) -> Shown:
    value = None if estimate is None else estimate.value
    return Shown(format_cell(value, unit), format_estimate_interval(estimate, unit) or "")


def _times_as_long(relative: RelativeSpeed) -> Estimate | None:
    speed = relative.speed
    if speed is None:
        return None
    low, high = (None if end is None else 1 / end for end in (speed.high, speed.low))
    return Estimate(1 / speed.value, low, high)


def caption(divisions: Mapping[str, Sequence[Standing]]) -> str:
    """`CAPTION`, and what the mark of another recipe says where a row has it."""
    if not any(row.has_other_recipe for rows in divisions.values() for row in rows):
        return CAPTION
    return (
        f"{CAPTION} {OTHER_RECIPE} trained by other values than its recipe has today: by an "
        "earlier version of it, or with options."
    )


def standings(sources: Iterable[Source]) -> dict[str, list[Standing]]:
    """The rows of each division, the official ones first and then the fastest first.

    Args:
        sources: all benchmarks that there are. Those to other targets, and those of which no run
            was completed, have no place here.
    """
    known = [
        (name, benchmark)
        for name, benchmark in sources
        if benchmark.target_accuracy == QUALITY_TARGET and completed(benchmark.records)
    ]
    numbers = {machine.name: machine.device for machine in machine_numbers(known)}
    divisions: dict[str, dict[str, list[Source]]] = {}
    for source in known:
        record = source[1].records[0]
        machine = labels.machine_label(record.setup.device_name, MachineKey.of(record.environment))
        divisions.setdefault(record.division, {}).setdefault(machine, []).append(source)
    order = sorted(divisions, reverse=True)  # the open division first
    return {division: _rows(divisions[division], numbers) for division in order}


def _rows(
    machines: dict[str, list[Source]], numbers: dict[str, MachineNumber | None]
) -> list[Standing]:
    chosen = {machine: _standing_for(sources) for machine, sources in machines.items()}
    ordered = sorted(chosen, key=lambda machine: _order(chosen[machine][1]))
    if not ordered:
        return []
    first = RunSet("the first row", tuple(chosen[ordered[0]][1].records))
    speeds = relative_speeds(first, [chosen[machine][1].records for machine in ordered])
    return [
        Standing(
            source=chosen[machine][0],
            benchmark=chosen[machine][1],
            machine=machine,
            reasons=tuple(reasons_against(chosen[machine][1])),
            torch=numbers.get(machine),
            relative=speed,
        )
        for machine, speed in zip(ordered, speeds, strict=True)
    ]


def _standing_for(sources: list[Source]) -> Source:
    """The one with the strongest claim; not torch's if there is another."""
    return max(sources, key=lambda source: _claim(source[1]))


def _claim(benchmark: Benchmark) -> tuple[bool, bool, bool, int, datetime]:
    """Greater for a benchmark that is rather its machine's row; see the module."""
    first, newest = benchmark.records[0], max(record.started_utc for record in benchmark.records)
    by_others = not uses_torch(first)
    if not any(reasons_against(benchmark)):
        return True, by_others, True, 0, newest
    # An experiment of one run must not replace a whole benchmark that other work disturbed.
    runs = min(len(completed(benchmark.records)), _fewest_runs(first))
    return False, by_others, has_todays_recipe(first), runs, newest


def _order(benchmark: Benchmark) -> tuple[bool, bool, float]:
    seconds = benchmark.summary("time_to_target_seconds").median
    return any(reasons_against(benchmark)), seconds is None, seconds or 0.0


def _fewest_runs(record: RunRecord) -> int:
    """Number of completed runs that an official benchmark takes, of one with this run."""
    is_open_cpu = record.division == "open" and record.setup.device == "cpu"
    return FEWEST_OPEN_CPU if is_open_cpu else FEWEST


def has_todays_recipe(record: RunRecord) -> bool:
    """Whether a run trained by the values that the recipe of its name has here and today.

    A recipe that is not built in is always today's.
    """
    recipe = RECIPES.get(recipe_name(record))
    return recipe is None or all(
        record.recipe.get(name, _BEFORE_FIELDS.get(name, 0)) == value
        for name, value in recipe.values().items()
        if name not in _BY_MACHINE
    )


def reasons_against(benchmark: Benchmark) -> Iterator[str]:
    """Why a benchmark is not official; nothing for an official one."""
    records = benchmark.records
    first = records[0]
    environment = first.environment
    if environment.commit is None and environment.version is None:
        yield "its code is not known"
    if sorted(record.seed for record in records) != list(range(len(records))):
        yield "its seeds are not 0 to n-1"
    fewest = _fewest_runs(first)
    if (runs := len(completed(records))) < fewest:
        yield f"{count_of(runs, 'completed run')} of the {fewest} that it takes"
    if first.setup.parallel_seeds > 1:
        yield "its runs shared the machine"
    if not ranked(records):
        yield "its times are not the machine's"
    for warning, number in benchmark.warnings.items():
        few = number is not None and number <= MOST_BUSY_SHARE * len(records)
        if warning not in _HARMLESS and not (warning is ResultWarning.BUSY_MACHINE and few):
            yield warning.split(". ")[0].rstrip(".")


def runs_to_become_official(benchmark: Benchmark) -> int | None:
    """How many runs a benchmark takes to be official, where it lacks nothing else.

    None also below `FEWEST_RUNS`, where a warning asks for more already.
    """
    first, runs = benchmark.records[0], len(completed(benchmark.records))
    fewest = _fewest_runs(first)
    lacks_runs = FEWEST_RUNS <= runs < fewest and len(list(reasons_against(benchmark))) == 1
    is_usual = benchmark.target_accuracy == QUALITY_TARGET and has_todays_recipe(first)
    return fewest if lacks_runs and is_usual else None
