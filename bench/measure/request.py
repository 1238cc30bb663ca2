"""What the command line asks for: values that are checked once and passed on whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from bench.measure.seed_share import SeedShare
from bench.records.folders import LOCAL_DIR
from bench.records.protocol import BenchmarkProtocol
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.recipe import DEVICES, Kernels, Precision, Recipe
from mnist_cnn.whole_numbers import MOST_PROCESSES, parse_whole

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
KERNELS: tuple[Kernels, ...] = get_args(Kernels)
CHECKPOINTS_DIR = ".checkpoints"
"""Default folder of checkpoints in the results folder; hidden, so that no reader of results looks
for records in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeRequest:
    """What a process is asked to compute with; `bench.measure.plan` decides what it gets."""

    device: str = "auto"
    """Device type as torch names it, or "auto" for the fastest device that is present."""
    precision: str = "auto"
    """fp32, bf16, fp16, or "auto" for the precision that the recipe prefers."""
    threads: int | None = None
    """Threads of each process; None for its share of the usable cores."""
    kernels: str = "auto"
    """What computes a step, or "auto" for the fastest kernels that this machine has."""
    capture: bool | None = None
    """Whether whole steps are recorded as CUDA graphs; None for wherever that is possible."""

    def __post_init__(self) -> None:
        """Refuse unknown names, before torch is imported to use them.

        Raises:
            UsageError: a name is unknown.
        """
        for kind, name, known in (
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
            ("kernels", self.kernels, KERNELS),
        ):
            if name not in ("auto", *known):
                names = ("auto", *known)
                raise UsageError(
                    f"unknown {kind} {name!r}{near_match(name, names)}; there are: "
                    f"{', '.join(names)}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """Which processes and machines are asked to train together."""

    processes: str | None = None
    """Number of ranks over all machines, "auto" for the fastest number here, None for one."""
    machines: int | None = None
    """Number of machines; None for this one."""
    machine_rank: int | None = None
    """Which of the machines this is, from 0."""
    main_address: str | None = None
    """HOST:PORT at which the other machines reach machine 0."""

    def __post_init__(self) -> None:
        """Refuse what is no number of processes.

        Raises:
            UsageError: it is none.
        """
        if self.processes in (None, "auto"):
            return
        try:
            total = parse_whole(str(self.processes), MOST_PROCESSES, word_besides="auto")
        except ValueError as error:
            raise UsageError(f"--processes {error}") from None
        if total < 1:
            raise UsageError(f"--processes must be at least 1, not {total}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRequest:
    """Where and how often a benchmark saves what an interrupted run resumes from."""

    folder: Path
    """Folder of the checkpoints."""
    results_dir: Path
    """Folder of the records, which say which runs are complete."""
    every: int | None
    """Epochs between two checkpoints; None for the interval of the benchmark that is resumed."""
    resume: bool
    """Whether a benchmark that was interrupted is continued."""
    fall_back: bool
    """Whether the previous checkpoint is used where the newest one is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRequest:
    """Where records go and what is printed."""

    results_dir: Path | None = LOCAL_DIR
    """Folder of the records; None where records are not kept."""
    label: str | None = None
    """Word that the records carry; None for none."""
    quiet: bool = False
    """Whether progress is not shown."""
    as_json: bool = False
    """Whether the runs are printed as JSON."""

    @property
    def silent(self) -> bool:
        """Whether nothing but the result is printed."""
        return self.quiet or self.as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A whole `mnist-bench run`."""

    command: tuple[str, ...]
    """Words of the command line, from the name of the command on."""
    recipe: Recipe
    protocol: BenchmarkProtocol = field(default_factory=BenchmarkProtocol)
    compute: ComputeRequest = field(default_factory=ComputeRequest)
    ranks: RankRequest = field(default_factory=RankRequest)
    checkpoints: CheckpointRequest | None = None
    """None where no checkpoints are saved."""
    output: OutputRequest = field(default_factory=OutputRequest)
    data_dir: Path | None = None
    """Folder of MNIST; None for the default folder."""
    parallel_seeds: str | None = None
    """Number of runs at a time, each in a process of its own, or "auto"; None for one."""
    profile: Path | None = None
    """File for a profiler trace, which replaces the measurement; None to measure."""
    dry_run: bool = False
    """Whether the launch command is printed and nothing is started."""
    share: SeedShare | None = None
    """Runs of the benchmark that this process makes; None for all."""
