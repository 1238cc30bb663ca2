"""The comparison of two devices alone: the same machines and recipe, torch's operators on both.

Where the kernels of two sides differ, a ratio of their times also says for whose device somebody
wrote code. The ratio of torch's operators does not, so it is shown beside.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.benchmarks import Benchmark, group_runs, pool_single_runs
from bench.analysis.case_comparison import compare_case
from bench.analysis.cases import Case, match_cases
from bench.analysis.comparison import Comparison
from bench.analysis.differences import INCOMPARABLE, find_differences
from bench.analysis.run_sets import RunSet
from bench.analysis.setup_key import recipe_name
from bench.analysis.step_code import codes_differ, uses_torch
from bench.records.machine_key import MachineKey
from bench.records.protocol import QUALITY_TARGET
from bench.records.schema import RunRecord
from bench.stats.summary import FEWEST_RUNS
from bench.text import printable
from mnist_cnn.recipe import RECIPES


@dataclass(frozen=True, slots=True)
class DeviceComparison:
    """Two machines, compared with torch's operators on both."""

    comparison: Comparison | None
    """The comparison; None where a side has no such runs."""
    missing: tuple[str, ...]
    """A line for each side that has no such runs, with the command that makes them."""


def mixes_code_and_device(case: Case) -> bool:
    """Whether both the machine and the code differ, so that a ratio shows neither alone."""
    return not case.same_machine and codes_differ(case.base, case.new)


def compare_devices(
    case: Case, known: Iterable[RunRecord], comparisons: int, difference_sought: float
) -> DeviceComparison:
    """Compare the machines of a case with torch's operators on both.

    Args:
        case: sides of one machine each, with completed runs.
        known: runs among which those with torch's operators are looked for.
        comparisons: number of cases that are compared together, as for the case itself.
        difference_sought: relative difference of times that the runs should be able to show.
    """
    candidates = [record for record in known if record.counts and uses_torch(record)]
    base = _torch_runs(case.base, candidates, case.new)
    new = _torch_runs(case.new, candidates, base or case.base)
    if not base or not new:
        sides = (("base", case.base, base), ("new", case.new, new))
        lines = [_missing_line(name, runs[0]) for name, runs, of_torch in sides if not of_torch]
        return DeviceComparison(None, tuple(lines))
    (torch_case,) = match_cases(RunSet("base", base), RunSet("new", new)).cases
    return DeviceComparison(compare_case(torch_case, comparisons, difference_sought), ())


def torch_command(record: RunRecord) -> str:
    """The command that trains a run's recipe with torch's operators."""
    name, protocol = recipe_name(record), record.protocol
    usual = RECIPES[name].values() if name in RECIPES else record.recipe
    words = ["mnist-bench", "run", "--recipe", name]
    for option, field in (
        ("--pipeline", "pipeline"),
        ("--epochs", "epochs"),
        ("--batch-size", "batch_size"),
    ):
        value = record.recipe.get(field)
        if value != usual.get(field):
            words += [option, str(value)]
    if protocol.target_accuracy != QUALITY_TARGET:
        words += ["--target-accuracy", f"{protocol.target_accuracy:g}"]
    if protocol.stop_at_target:
        words.append("--stop-at-target")
    words += ["--device", record.setup.device, "--kernels", "torch"]
    return printable(shlex.join(words))


def _torch_runs(
    side: Sequence[RunRecord], candidates: Sequence[RunRecord], other: Sequence[RunRecord]
) -> tuple[RunRecord, ...]:
    """A side's machine with torch's operators: its own runs, or its fastest benchmark of such runs.

    Args:
        side: the side's runs.
        candidates: completed runs with torch's operators, of any machine.
        other: the side that they will be compared with.
    """
    if all(map(uses_torch, side)):
        return tuple(side)
    matching = [record for record in candidates if _is_like(record, side[0], other)]
    benchmarks = pool_single_runs(group_runs((None, record) for record in matching))
    return tuple(max(benchmarks, key=_preference).records) if benchmarks else ()


def _is_like(record: RunRecord, like: RunRecord, other: Sequence[RunRecord]) -> bool:
    """Whether a run is of the same machine and recipe, and may be compared with the other side."""
    return (
        _place(record) == _place(like)
        and _same_recipe(record, like)
        and not find_differences(INCOMPARABLE, [record], [like])
        and not find_differences(INCOMPARABLE, [record], other)
    )


def _same_recipe(record: RunRecord, other: RunRecord) -> bool:
    """Whether two recipes are equal in all fields that both have: older records have fewer."""
    fields = record.recipe.keys() & other.recipe.keys()
    return all(record.recipe[field] == other.recipe[field] for field in fields)


def _place(record: RunRecord) -> tuple[object, ...]:
    """The machine, and how much of it a run used."""
    setup = record.setup
    return (
        MachineKey.of(record.environment),
        *(setup.device, setup.device_name, setup.machines, setup.parallel_seeds),
    )


def _preference(benchmark: Benchmark) -> tuple[bool, float]:
    """Enough runs for an interval first, then the most images a second."""
    summary = benchmark.summary("images_per_second")
    return summary.count >= FEWEST_RUNS, summary.median or 0.0


def _missing_line(side: str, record: RunRecord) -> str:
    device = printable(record.setup.device_name)
    return (
        f"{side}: no runs of {device} with this recipe and torch's operators were found. To "
        f"compare the devices alone, run there: {torch_command(record)}"
    )
