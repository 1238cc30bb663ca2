"""What the machines and software of several set-ups have in common, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench import text
from bench.records.schema import RunRecord
from bench.report.html.series import SetupSeries
from bench.text import MISSING, printable

MOST_COLUMNS = 12
"""Different surroundings that are shown beside each other."""
_Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EnvironmentFact:
    """One thing known of each of the surroundings."""

    name: str
    values: tuple[str, ...]
    """A column each."""
    usual: str
    """The most frequent of them, the first of equally frequent ones."""

    @property
    def differs(self) -> bool:
        """Whether the columns do not agree."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class EnvironmentTable:
    """A table of facts: a column for each different machine or software."""

    columns: tuple[str, ...]
    """Which set-ups: ``"1, 3, 5–9"``."""
    facts: tuple[EnvironmentFact, ...]
    """Those that differ first."""
    left_out: int
    """Columns there was no room for: those with the fewest runs."""


def environment_table(series: Sequence[SetupSeries]) -> EnvironmentTable:
    """Compare what the set-ups ran on and by."""
    found: dict[_Facts, Counter[int]] = {}
    told: dict[tuple[int, int], _Facts] = {}  # runs of a benchmark share theirs, as objects
    for one in series:
        for record in one.benchmark.records:
            who = id(record.environment), id(record.setup)
            facts = told.get(who) or told.setdefault(who, _facts(record))
            found.setdefault(facts, Counter())[one.number] += 1
    by_runs = sorted(found, key=lambda facts: -found[facts].total())[:MOST_COLUMNS]
    kept = sorted(by_runs, key=lambda facts: min(found[facts]))
    names = dict.fromkeys(name for facts in kept for name, _ in facts)
    rows = []
    for name in names:
        values = tuple(dict(facts).get(name, MISSING) for facts in kept)
        rows.append(EnvironmentFact(name, values, Counter(values).most_common(1)[0][0]))
    rows.sort(key=lambda fact: not fact.differs)
    columns = tuple(ranges(sorted(found[facts])) for facts in kept)
    return EnvironmentTable(columns, tuple(rows), len(found) - len(kept))


def _facts(record: RunRecord) -> _Facts:
    """Everything that a run says of its machine and software, as it is written for people."""
    here, setup = record.environment, record.setup
    told = {
        "device": here.device_name,
        "device memory": _memory(here.device_memory_bytes),
        "driver": here.driver,
        "processor": here.cpu,
        "instruction sets": ", ".join(here.cpu_features),
        "cores": f"{_or(here.physical_cores)} physical, {here.logical_cores} logical, "
        f"{here.usable_cores} usable",
        "memory": _memory(here.memory_bytes),
        "operating system": here.os,
        "virtual machine": _yes(here.virtual_machine),
        "Python": here.python,
        "torch": here.torch,
        "torch built for": here.torch_build,
        "accelerate": here.accelerate,
        **dict(sorted(here.packages.items())),
        "commit": here.commit and here.commit[:12],
        "uncommitted changes": _yes(here.dirty),
        "launcher": setup.launcher,
        "float32 matrix precision": setup.matmul_precision,
        "memory format": setup.memory_format,
        "torch.compile": setup.dynamo_backend,
        "accelerate's configuration": setup.accelerate_config,
        **{f"${name}": value for name, value in sorted(setup.environment.items())},
    }
    return tuple(
        (printable(name), printable(value) if value else MISSING) for name, value in told.items()
    )


def _memory(count: int | None) -> str | None:
    return None if count is None else text.memory(count)


def _or(count: int | None) -> str:
    return MISSING if count is None else str(count)


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def ranges(numbers: Sequence[int]) -> str:
    """``"1, 3, 5–9"``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        str(run[0]) if len(run) == 1 else f"{run[0]}{'–' if len(run) > 2 else ', '}{run[-1]}"
        for run in runs
    )
