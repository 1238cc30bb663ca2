"""What is stored of a run: raw measurements, one JSON document per run, never edited.

Times to target, throughput and everything else that can be computed is derived on reading
(`bench.analysis.metrics`). Records print nothing, and reading them needs no torch. The parts of a
record are in `training`, `setup` and `machine`; other rooms import them from here.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from bench.records.machine import (
    CoreClass,
    Energy,
    Environment,
    Gpu,
    GpuState,
    GpuWatch,
    Joules,
    Load,
    Monitoring,
    PeakMemory,
    Processor,
)
from bench.records.model import (
    Count,
    Model,
    Moment,
    Number,
    Seconds,
    Whole,
    check_bounds,
    in_utc,
)
from bench.records.setup import (
    Calibration,
    ClockCheck,
    Fallback,
    KernelShape,
    ParityCheck,
    PlanLink,
    ProtocolValues,
    Setup,
    WarmUp,
    with_todays_kernels,
)
from bench.records.training import (
    Evaluation,
    Lap,
    LapKind,
    Mistakes,
    TrainedEpoch,
    first_reached,
)
from mnist_cnn.recipe import Recipe

__all__ = [
    "READABLE_VERSIONS",
    "SCHEMA_VERSION",
    "Calibration",
    "ClockCheck",
    "CoreClass",
    "Energy",
    "Environment",
    "Evaluation",
    "Fallback",
    "Gpu",
    "GpuState",
    "GpuWatch",
    "Joules",
    "KernelShape",
    "Lap",
    "LapKind",
    "Load",
    "Mistakes",
    "Model",
    "Monitoring",
    "ParityCheck",
    "PeakMemory",
    "PlanLink",
    "Processor",
    "ProtocolValues",
    "RunRecord",
    "Setup",
    "Status",
    "TrainedEpoch",
    "WarmUp",
    "first_reached",
]

SCHEMA_VERSION: Final = 13
"""The version that is written. Version 2 added `Setup.kernels`; version 3 says which compiled code;
version 4 added `RunRecord.clock` and the options of `--runs auto`; version 5 `Setup.captured`,
`RunRecord.mistakes`, `energy` and `monitoring`; version 6 `Setup.machines`, `RunRecord.resumed` and
`restarted`, and the laps checkpoint and resume; version 7 `RunRecord.all_reduce_seconds`,
`parity` and `Setup.parallel_seeds`; version 8 says which machine it was (`Environment.processor`,
`gpu`, `quota_cores`), which code (`source_sha256`, `library_sha256`), how fast the machine itself
was (`calibration`), how the warm-up went (`warmup`), what the plan was (`plan`), and in `Load` what
the run was allowed to use; version 9 names compiled code by its instruction set: what was
``"avx512"`` before is ``"avx512-bf16"``; version 10 says why a commit is unknown
(`Environment.commit_unknown_reason`); version 11 what three whole steps of a run are compared with
(`ParityCheck.weights` and the fields after it), and what was tried before (`Setup.fallbacks`,
`kernel_shapes`); version 12 knows the kernels ``"cluster"``; version 13 has
`ParityCheck.graphs` and `last_batch`."""
READABLE_VERSIONS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
"""The versions that are read; a field that an older version lacks defaults to what held then."""


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    """Every epoch was trained, or the target was reached with --stop-at-target."""
    INTERRUPTED = "interrupted"
    """The user stopped it."""
    DIVERGED = "diverged"
    """The training loss was no longer a finite number."""
    FAILED = "failed"
    """An error ended it."""


class RunRecord(Model):
    """One training from random weights, measured."""

    schema_version: Annotated[Whole, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    """Version of the format that the record was written in."""
    run_id: str
    """Identifier of the run."""
    benchmark_id: str
    """Identifier that the runs of one benchmark share."""
    run_index: Annotated[Whole, Field(ge=1)]
    """Number of the run in its benchmark, from 1."""
    started_at: Moment
    """UTC."""
    status: Status
    """How the run ended."""
    reason: str | None
    """Why the run is not completed, in one line; null when it is."""
    resumed: Count = 0
    """How often the run was lost and continued, from a checkpoint or from its start."""
    restarted: Count = 0
    """How often the launcher had restarted all ranks by then (torchrun's --max-restarts)."""
    label: str | None
    """The user's label of the benchmark; null without one."""
    command: list[str]
    """Words of the command line, with paths shortened."""
    division: Literal["closed", "open"]
    """"closed" for the reference recipe, "open" for any other."""
    seed: Count
    """Seed of the weights, of the order of the images and of their distortions."""
    protocol: ProtocolValues
    """What the run was measured by."""
    recipe: dict[str, JsonValue]
    """Every field of the recipe."""
    setup: Setup
    """What the run ran on and with."""
    clock: ClockCheck | None = None
    """Check of the clock before the first run; null in records before version 4."""
    parity: ParityCheck | None = None
    """Check of the device's arithmetic before the first run; null where the run used the CPU's own
    operators in fp32, and in records before version 7."""
    calibration: Calibration | None = None
    """Speed of the machine itself before the first run; null in records before version 8."""
    warmup: WarmUp | None = None
    """Repetitions of the warm-up; null in records before version 8."""
    plan: PlanLink | None = None
    """The plan of the benchmark; null where records are not saved, and before version 8."""
    all_reduce_seconds: Seconds | None = None
    """Seconds to sum all gradients over the ranks, measured alone before the first run; null for
    one rank, and in records before version 7."""
    laps: list[Lap]
    """What the time was spent on, in order."""
    epochs: list[TrainedEpoch]
    """The epochs that were trained, in order."""
    evaluations: list[Evaluation]
    """The evaluations, in order."""
    samples_seen: Count
    """Number of training images, over all ranks."""
    target_reached_epoch: Whole | None
    """Epoch of the first evaluation at or above the target; null where none was."""
    final_accuracy: Number | None
    """Accuracy of the last evaluation, as a fraction; null without an evaluation."""
    mistakes: Mistakes | None = None
    """Images that the last evaluation got wrong; null in records before version 5, for runs that
    did not complete, and where a repeated evaluation counted another number of them."""
    peak_memory: PeakMemory
    """The most memory that the run held."""
    load: Load
    """How busy the machine was."""
    energy: Energy | None = None
    """Energy that the run used; null in records before version 5."""
    monitoring: Monitoring | None = None
    """State of the device around the run; null in records before version 5."""
    dataset: dict[str, str]
    """SHA-256 of each uncompressed IDX file, by the file's name."""
    environment: Environment
    """The machine and its software."""

    @property
    def started_utc(self) -> datetime:
        """When the run started; a record without a time zone means UTC."""
        return in_utc(self.started_at)

    @property
    def outcome(self) -> str:
        """The status, or how a completed run was continued: ``"resumed"``, ``"restarted"``."""
        if self.status is Status.COMPLETED and self.resumed:
            return "resumed"
        if self.status is Status.COMPLETED and self.restarted:
            return "restarted"
        return self.status.value

    @property
    def counts(self) -> bool:
        """Whether summaries of several runs include it: it completed without a break."""
        return self.outcome == Status.COMPLETED.value

    @model_validator(mode="before")
    @classmethod
    def _names_kernels_as_today(cls, values: object) -> object:
        """Versions 1 to 8 had other names of compiled code."""
        if isinstance(values, dict) and values.get("schema_version", SCHEMA_VERSION) in range(1, 9):
            return with_todays_kernels(values)
        return values

    @model_validator(mode="after")
    def _has_nothing_newer_than_itself(self) -> Self:
        """A version without a field cannot have written it."""
        version = self.schema_version
        added = (
            (5, "energy", self.energy is not None),
            (5, "mistakes", self.mistakes is not None),
            (5, "monitoring", self.monitoring is not None),
            (6, "resumed", self.resumed != 0),
            (6, "restarted", self.restarted != 0),
            (6, "machines", self.setup.machines != 1),
            (7, "all_reduce_seconds", self.all_reduce_seconds is not None),
            (7, "parity", self.parity is not None),
            (7, "parallel_seeds", self.setup.parallel_seeds != 1),
            (8, "calibration", self.calibration is not None),
            (8, "warmup", self.warmup is not None),
            (8, "plan", self.plan is not None),
            (8, "processor", self.environment.processor is not None),
            (8, "gpu", self.environment.gpu is not None),
            (8, "quota_cores", self.environment.quota_cores is not None),
            (8, "source_sha256", self.environment.source_sha256 is not None),
            (8, "library_sha256", self.environment.library_sha256 is not None),
            (8, "throttled_seconds", self.load.throttled_seconds is not None),
            (8, "usable_cores_before", self.load.usable_cores_before is not None),
            (8, "usable_cores_after", self.load.usable_cores_after is not None),
            (8, "quota_cores_before", self.load.quota_cores_before is not None),
            (8, "quota_cores_after", self.load.quota_cores_after is not None),
            (10, "commit_unknown_reason", self.environment.commit_unknown_reason is not None),
            (11, "parity.weights", self.parity is not None and self.parity.weights is not None),
            (11, "fallbacks", bool(self.setup.fallbacks)),
            (11, "kernel_shapes", self.setup.kernel_shapes is not None),
            (12, 'kernels "cluster"', self.setup.kernels == "cluster"),
            (13, "parity.graphs", self.parity is not None and self.parity.graphs is not None),
        )
        for added_in, name, is_used in added:
            if version < added_in and is_used:
                raise ValueError(f"{name} is not a field of schema_version {version}")
        for lap in self.laps:
            if version < 6 and lap.kind in (LapKind.CHECKPOINT, LapKind.RESUME):
                raise ValueError(f"schema_version {version} has no laps of kind {lap.kind}")
        return self

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        """The summaries must equal what the raw measurements say."""
        for name in self.recipe.keys() & Recipe.__dataclass_fields__.keys():
            check_bounds(f"recipe.{name}", self.recipe[name])
        if self.target_reached_epoch != first_reached(
            self.evaluations, self.protocol.target_accuracy
        ):
            raise ValueError("target_reached_epoch is not what the evaluations say")
        last = self.evaluations[-1] if self.evaluations else None
        if self.final_accuracy != (None if last is None else last.accuracy):
            raise ValueError("final_accuracy is not what the last evaluation says")
        if self.mistakes is not None:
            if last is None or len(self.mistakes.images) != last.samples - last.correct:
                raise ValueError("mistakes are not as many as the last evaluation counted")
            if self.mistakes.images and self.mistakes.images[-1] >= last.samples:
                raise ValueError("mistakes name an image that was not evaluated")
        if self.samples_seen != sum(epoch.samples for epoch in self.epochs):
            raise ValueError("samples_seen is not the sum of the epochs'")
        return self
