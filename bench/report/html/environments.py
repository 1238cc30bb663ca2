"""What the machines and software of several set-ups share, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench import text
from bench.records.machine_key import MachineKey
from bench.records.schema import Environment, RunRecord
from bench.report.html.series import SetupSeries
from bench.text import MISSING, printable

MOST_COLUMNS = 12
"""Greatest number of different environments that the table shows."""
_Facts = tuple[tuple[str, str], ...]
"""Name and value of everything known of one environment."""


@dataclass(frozen=True, slots=True)
class EnvironmentFact:
    """One fact, with its value in each environment."""

    name: str
    values: tuple[str, ...]
    """Values, one per column."""
    usual: str
    """The most frequent value, the first one of equally frequent ones."""

    @property
    def differs(self) -> bool:
        """Whether the columns differ."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class EnvironmentTable:
    """A table of facts, with one column per different machine and software."""

    columns: tuple[str, ...]
    """Numbers of the set-ups of each column: ``"1, 3, 5–9"``."""
    facts: tuple[EnvironmentFact, ...]
    """Facts that differ, then facts that all columns share."""
    left_out: int
    """Number of columns that are left out: those with the fewest runs."""


def environment_table(all_series: Sequence[SetupSeries]) -> EnvironmentTable:
    """Compare the machines and software of set-ups."""
    runs_by_facts: dict[_Facts, Counter[int]] = {}
    """Number of runs of each set-up, by the facts of their environment."""
    cache: dict[tuple[int, int], _Facts] = {}  # runs of a benchmark share these objects
    for series in all_series:
        for record in series.benchmark.records:
            key = id(record.environment), id(record.setup)
            facts = cache.get(key) or cache.setdefault(key, _facts(record))
            runs_by_facts.setdefault(facts, Counter())[series.number] += 1
    by_runs = sorted(runs_by_facts, key=lambda facts: -runs_by_facts[facts].total())
    kept = sorted(by_runs[:MOST_COLUMNS], key=lambda facts: min(runs_by_facts[facts]))
    names = dict.fromkeys(name for facts in kept for name, _ in facts)
    rows = []
    for name in names:
        values = tuple(dict(facts).get(name, MISSING) for facts in kept)
        rows.append(EnvironmentFact(name, values, Counter(values).most_common(1)[0][0]))
    rows.sort(key=lambda fact: not fact.differs)
    columns = tuple(ranges(sorted(runs_by_facts[facts])) for facts in kept)
    return EnvironmentTable(columns, tuple(rows), len(runs_by_facts) - len(kept))


def _facts(record: RunRecord) -> _Facts:
    """Everything that a run records of its machine and software, as text for people."""
    environment, setup = record.environment, record.setup
    facts = {
        "device": environment.device_name,
        "device memory": _memory(environment.device_memory_bytes),
        "driver": environment.driver,
        "processor": environment.cpu,
        **_machine(environment),
        "instruction sets": ", ".join(environment.cpu_features),
        "cores": f"{_count(environment.physical_cores)} physical, "
        f"{environment.logical_cores} logical, {environment.usable_cores} usable",
        "memory": _memory(environment.memory_bytes),
        "operating system": environment.os,
        "virtual machine": _yes_or_no(environment.virtual_machine),
        "Python": environment.python,
        "torch": environment.torch,
        "torch built for": environment.torch_build,
        "accelerate": environment.accelerate,
        **dict(sorted(environment.packages.items())),
        "commit": environment.commit and environment.commit[:12],
        "uncommitted changes": _yes_or_no(environment.dirty),
        "launcher": setup.launcher,
        "float32 matrix precision": setup.matmul_precision,
        "memory format": setup.memory_format,
        "torch.compile": setup.dynamo_backend,
        "accelerate's configuration": setup.accelerate_config,
        **{f"${name}": value for name, value in sorted(setup.environment.items())},
    }
    return tuple(
        (printable(name), printable(value) if value else MISSING) for name, value in facts.items()
    )


def _machine(environment: Environment) -> dict[str, str]:
    """The key of the machine; nothing for records before version 8, which have none."""
    label = MachineKey.of(environment).label
    return {} if label is None else {"machine": label}


def _memory(count: int | None) -> str | None:
    return None if count is None else text.memory(count)


def _count(count: int | None) -> str:
    return MISSING if count is None else str(count)


def _yes_or_no(value: bool | None) -> str | None:
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
