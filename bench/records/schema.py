"""What is stored of a run: raw measurements, one JSON document a run, never edited.

Times to target, throughput and everything else that can be computed is derived on reading
(`bench.analysis.metrics`). Records know nothing of printing, and reading them needs no torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

SCHEMA_VERSION: Final = 7
"""What is written. Version 2 added `Setup.kernels`; version 3 says which compiled ones they are;
version 4 added `RunRecord.clock` and what `--runs auto` was asked for; version 5 `Setup.captured`,
`RunRecord.mistakes`, `energy` and `monitoring`; version 6 `Setup.machines`, `RunRecord.resumed` and
`restarted`, and the laps checkpoint and resume; version 7 `RunRecord.all_reduce_seconds`,
`parity` and `Setup.parallel_seeds`."""
READABLE_VERSIONS: Final = (1, 2, 3, 4, 5, 6, 7)
"""What is read; a field that an older version lacks has what was the case then as its default."""


class Model(BaseModel):
    """Frozen, strict about unknown fields, and without NaN: every record is valid JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    """Every epoch was trained, or the target was reached with --stop-at-target."""
    INTERRUPTED = "interrupted"
    """Somebody stopped it."""
    DIVERGED = "diverged"
    """The training loss was no longer a finite number."""
    FAILED = "failed"
    """An error ended it."""


class LapKind(StrEnum):
    """What a timed span was spent on."""

    STARTUP = "startup"
    """From the start of the process to the start of its first measurement: imports, ranks."""
    WARMUP = "warmup"
    """The discarded warm-up run, compilation included."""
    INIT = "init"
    """From the first touch of the data to the first step: read, verify, move, build."""
    TRAIN = "train"
    EVAL = "eval"
    CHECKPOINT = "checkpoint"
    """Keeping the state after an epoch."""
    RESUME = "resume"
    """As INIT, in a process that goes on from a checkpoint; what was lost before is in no lap."""


Seconds = Annotated[float, Field(ge=0)]
Difference = Annotated[float, Field(ge=0)]
"""As a share of what it is from."""
Count = Annotated[int, Field(ge=0)]


class Lap(Model):
    """A timed span; both ends with the device's queue empty. The slowest rank's, of several."""

    kind: LapKind
    epoch: int | None = None
    """Of train and eval laps, from 1."""
    start_seconds: float
    """Since the run's clock started; negative for what went before (startup, warm-up)."""
    seconds: Seconds


class TrainedEpoch(Model):
    """What an epoch of training reported."""

    epoch: int
    steps: Count
    samples: Count
    """Images, over all ranks."""
    loss: float | None
    """Mean training loss; null where it was not finite."""


class Evaluation(Model):
    """What an evaluation counted."""

    epoch: int
    samples: Annotated[int, Field(gt=0)]
    correct: Count
    loss: float | None
    samples_seen: Count
    """Training images up to here, over all ranks."""

    @model_validator(mode="after")
    def _counts_no_more_than_there_are(self) -> Self:
        if self.correct > self.samples:
            raise ValueError("correct is more than samples")
        return self

    @property
    def accuracy(self) -> float:
        """Share classified rightly, 0 to 1."""
        return self.correct / self.samples


class Mistakes(Model):
    """What the last evaluation got wrong, found out after the run, off its clock."""

    images: list[Count]
    """Which of the images evaluated on, from 0, rising: of the test set, unless the recipe's
    `evaluation_split` says otherwise."""
    predicted: list[Annotated[int, Field(ge=0, le=9)]]
    """What each was taken for."""

    @model_validator(mode="after")
    def _one_guess_an_image(self) -> Self:
        if len(self.images) != len(self.predicted):
            raise ValueError("not one prediction an image")
        if any(a >= b for a, b in pairwise(self.images)):
            raise ValueError("images are not in rising order")
        return self


class ProtocolValues(Model):
    """The protocol a run was measured by."""

    version: int
    target_accuracy: Annotated[float, Field(gt=0, lt=1)]
    runs: Annotated[int, Field(ge=1)]
    """Runs the benchmark was to have."""
    warmup_images: Count
    stop_at_target: bool
    half_width: float | None = None
    """Where runs were made until the time was known this well (--runs auto): `runs` is then the
    most there might have been."""
    budget_seconds: float | None = None


class ClockCheck(Model):
    """What the clock showed of a known piece of work, before anything was timed by it."""

    work: str
    """What the device was given."""
    asked_seconds: Seconds
    """Until all of it had been asked for, the device not waited for."""
    done_seconds: Seconds
    """Until the clock said that it was done."""
    left_seconds: Seconds
    """What had still to be waited for then, until a result was there: next to nothing."""
    resolution_seconds: Seconds
    """The least difference between two readings."""


class ParityCheck(Model):
    """How far a device's batch and step were from the CPU's in fp32; see `mnist_cnn.parity`."""

    images: Difference
    loss: Difference
    gradient: Difference
    parameter: str
    """Whose gradient was furthest off,"""
    parameter_gradient: Difference
    """by so much."""
    allowed: Difference
    """Of gradients, and a tenth of it of the loss; with more, nothing is trained."""


class Setup(Model):
    """What the run ran on and by, as it turned out to be, not as it was asked for."""

    device: str
    """torch's device type: cpu, cuda, mps, xpu."""
    device_name: str
    processes: Annotated[int, Field(ge=1)]
    """Over all machines."""
    machines: Annotated[int, Field(ge=1)] = 1
    """That the processes ran on, as many on each."""
    parallel_seeds: Annotated[int, Field(ge=1)] = 1
    """Runs of its benchmark that were made at a time, this one among them: they share what the
    machine has, so times are those of so many."""
    threads: Annotated[int, Field(ge=1)]
    """That compute, of each process."""
    precision: Literal["fp32", "bf16", "fp16"]
    kernels: Literal["torch", "inductor", "triton", "avx512", "amx"] = "torch"
    """What computes a step: torch's operators, as always before there was a choice, the same fused
    by torch's compiler, or one of mnist_cnn.kernels.native's two kinds of compiled code."""
    captured: bool = False
    """Whether the device had whole steps recorded and replayed them (CUDA graphs)."""
    uncaptured_reason: str | None = None
    """Why it had not, where the device can."""
    matmul_precision: str
    """torch.get_float32_matmul_precision(): whether fp32 products may be rounded."""
    memory_format: str
    dynamo_backend: str
    """torch.compile's backend, "no" where nothing is compiled."""
    accelerate_config: str | None
    """Accelerate's default config file if there is one, the home folder as ~."""
    launcher: str
    """What started the ranks: "python", "accelerate" or "torchrun"."""
    environment: dict[str, str]
    """Environment variables that change speed or results, those that were set."""

    @model_validator(mode="after")
    def _has_a_process_a_machine(self) -> Self:
        if self.processes % self.machines:
            raise ValueError("processes are not as many on every machine")
        return self

    @property
    def computed_by(self) -> str:
        """`kernels`, and whether they were replayed from graphs: ``"triton graph"``."""
        return f"{self.kernels} graph" if self.captured else self.kernels

    @field_validator("kernels", mode="before")
    @classmethod
    def _of_version_2(cls, value: object) -> object:
        """There was one kind of compiled code, called native."""
        return "avx512" if value == "native" else value


class PeakMemory(Model):
    """The most memory the run held."""

    bytes: Annotated[int, Field(gt=0)] | None
    source: str
    """What counted it, or why it is not known."""


class Load(Model):
    """How much the machine did besides this run."""

    load_average_before: float | None
    """Over one minute, when the run started."""
    load_average_after: float | None
    busy_seconds: Seconds | None
    """Core-seconds in which any core was busy (or taken away by the hypervisor) in the run."""
    own_seconds: Seconds | None
    """Of these, this run's own processes'."""
    elapsed_seconds: Seconds


class Joules(Model):
    """Energy that was used, by a counter."""

    joules: Annotated[float, Field(ge=0)] | None
    source: str
    """What counted it, or why it is not known."""


class Energy(Model):
    """What was used from the run's start to its end, evaluation included."""

    device: Joules
    """By what trained: the GPUs' boards; else the machine's processors and their memory."""
    host: Joules | None
    """Beside an accelerator, by the machine's processors and their memory; null where these are the
    device, or in one package with it."""


class GpuState(Model):
    """A GPU at one moment; null is what its driver does not tell, with the reason in `refused`."""

    sm_clock_mhz: Count | None
    memory_clock_mhz: Count | None
    temperature_celsius: int | None
    power_watts: Annotated[float, Field(ge=0)] | None
    """The mean of up to the last second."""
    utilization: Annotated[float, Field(ge=0)] | None
    """Share of up to the last second in which anything ran on it, this run included."""
    memory_used_bytes: Count | None
    """By all processes and the driver."""
    throttle_reasons: list[str] | None
    """What holds its clocks down."""
    other_processes: Count | None
    """That compute on it, besides the run's own."""
    others_memory_bytes: Count | None
    """Of `memory_used_bytes`, those processes'."""
    refused: dict[str, str]
    """Why a field is null, by its name."""


class GpuWatch(Model):
    """A GPU around a run."""

    before: GpuState
    after: GpuState
    throttled_seconds: dict[str, Seconds] | None
    """How long in the run its clocks were held down, by what: power, heat, board limit."""
    source: str
    """What counted `throttled_seconds`, or why they are not known."""


class Monitoring(Model):
    """The state of what trained, around a run."""

    gpus: list[GpuWatch]
    gpus_source: str
    """What told their state, or why there is none."""
    cpu_mhz_before: Annotated[float, Field(ge=0)] | None
    """Mean over the cores, as the system tells it."""
    cpu_mhz_after: Annotated[float, Field(ge=0)] | None
    cpu_throttle_events: Count | None
    """How often in the run a core, or the package it is in, was slowed down for its heat."""
    cpu_throttle_source: str
    """What counted them, or why they are not known."""


class Environment(Model):
    """What machine and software this is. Holds no host name, user name or serial number."""

    device_name: str
    device_memory_bytes: int | None
    cpu: str
    cpu_features: list[str]
    """Instruction sets that decide the speed of matrix products, of those known."""
    physical_cores: int | None
    logical_cores: int
    usable_cores: int
    """Cores this process may run on."""
    memory_bytes: int
    os: str
    virtual_machine: bool | None
    python: str
    driver: str | None
    """Of the accelerator."""
    torch: str
    torch_build: str | None
    """The CUDA or ROCm version torch was built for."""
    accelerate: str
    packages: dict[str, str]
    """Versions of everything else installed that a run uses."""
    commit: str | None
    """Of this repository; null where it is not a git checkout."""
    dirty: bool | None
    """Whether tracked files differed from that commit."""


class RunRecord(Model):
    """One training from random weights, measured."""

    schema_version: Literal[1, 2, 3, 4, 5, 6, 7] = SCHEMA_VERSION
    run_id: str
    benchmark_id: str
    """Shared by the runs of one benchmark."""
    run_index: Annotated[int, Field(ge=1)]
    """Which run of the benchmark, from 1."""
    started_at: datetime
    """UTC."""
    status: Status
    reason: str | None
    """One line that says why the run is not completed; null when it is."""
    resumed: Count = 0
    """How often the run was lost and taken up again, from a checkpoint or from its start."""
    restarted: Count = 0
    """How often the launcher had started all ranks anew by then (torchrun's --max-restarts)."""
    label: str | None
    command: list[str]
    """The command line, paths shortened."""
    division: Literal["closed", "open"]
    seed: Count
    protocol: ProtocolValues
    recipe: dict[str, JsonValue]
    """Every field of the recipe."""
    setup: Setup
    clock: ClockCheck | None = None
    """None in records of before version 4."""
    parity: ParityCheck | None = None
    """What the device was found to compute before the first run; None where it is the CPU's own
    operators in fp32, and in records of before version 7."""
    all_reduce_seconds: Seconds | None = None
    """To sum all gradients over the ranks, as measured by itself before the first run; None for one
    rank, and in records of before version 7."""
    laps: list[Lap]
    epochs: list[TrainedEpoch]
    evaluations: list[Evaluation]
    samples_seen: Count
    """Training images, over all ranks."""
    target_reached_epoch: int | None
    """Epoch of the first evaluation at or above the target."""
    final_accuracy: float | None
    """The last evaluation's."""
    mistakes: Mistakes | None = None
    """None in records of before version 5, of runs that did not complete, and where the network,
    evaluated once more, did not get as many wrong as the evaluation that counts."""
    peak_memory: PeakMemory
    load: Load
    energy: Energy | None = None
    """None in records of before version 5."""
    monitoring: Monitoring | None = None
    """None in records of before version 5."""
    dataset: dict[str, str]
    """SHA-256 of each uncompressed IDX file."""
    environment: Environment

    @property
    def started_utc(self) -> datetime:
        """When it started; a record that names no time zone means UTC."""
        started = self.started_at
        return started.astimezone(UTC) if started.tzinfo else started.replace(tzinfo=UTC)

    @property
    def outcome(self) -> str:
        """The status; of a completed run that was not made in one go, what it was instead."""
        if self.status is Status.COMPLETED and self.resumed:
            return "resumed"
        if self.status is Status.COMPLETED and self.restarted:
            return "restarted"
        return self.status.value

    @property
    def counts(self) -> bool:
        """Whether it enters what is said of several runs: completed, and in one go."""
        return self.outcome == Status.COMPLETED.value

    @model_validator(mode="after")
    def _has_nothing_newer_than_itself(self) -> Self:
        """A version that had no such field could not have written it."""
        for name in ("energy", "mistakes", "monitoring"):
            if self.schema_version < 5 and getattr(self, name) is not None:
                raise ValueError(f"{name} is not a field of schema_version {self.schema_version}")
        if self.schema_version < 6:
            for name in ("resumed", "restarted"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} is not a field of schema_version {self.schema_version}"
                    )
            for lap in self.laps:
                if lap.kind in (LapKind.CHECKPOINT, LapKind.RESUME):
                    raise ValueError(
                        f"schema_version {self.schema_version} has no laps of kind {lap.kind}"
                    )
            if self.setup.machines != 1:
                raise ValueError(f"machines is not a field of schema_version {self.schema_version}")
        if self.schema_version < 7:
            for name in ("all_reduce_seconds", "parity"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} is not a field of schema_version {self.schema_version}"
                    )
            if self.setup.parallel_seeds != 1:
                raise ValueError(
                    f"parallel_seeds is not a field of schema_version {self.schema_version}"
                )
        return self

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        """The two summaries must be what the raw evaluations say."""
        if self.target_reached_epoch != first_reached(
            self.evaluations, self.protocol.target_accuracy
        ):
            raise ValueError("target_reached_epoch is not what the evaluations say")
        final = self.evaluations[-1].accuracy if self.evaluations else None
        if self.final_accuracy != final:
            raise ValueError("final_accuracy is not what the last evaluation says")
        if self.mistakes is not None:
            last = self.evaluations[-1] if self.evaluations else None
            if last is None or len(self.mistakes.images) != last.samples - last.correct:
                raise ValueError("mistakes are not as many as the last evaluation counted")
            if self.mistakes.images and self.mistakes.images[-1] >= last.samples:
                raise ValueError("mistakes name an image that was not evaluated")
        if self.samples_seen != sum(epoch.samples for epoch in self.epochs):
            raise ValueError("samples_seen is not the sum of the epochs'")
        try:
            _ = self.started_utc
        except OverflowError:
            raise ValueError("started_at is in no year that UTC has") from None
        return self


def first_reached(evaluations: list[Evaluation], target_accuracy: float) -> int | None:
    """Epoch of the first evaluation at or above the target, or None."""
    return next((e.epoch for e in evaluations if e.accuracy >= target_accuracy), None)
