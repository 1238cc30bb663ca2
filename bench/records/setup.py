"""Parts of a record: how the run was set up, by which rules, and what was checked before it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench.records.model import Count, Difference, Flag, Model, Number, Seconds, Whole
from mnist_cnn.recipe import FP32_PRODUCTS, Kernels, Precision


class ProtocolValues(Model):
    """The protocol that the run was measured by."""

    version: Whole
    """Version of the protocol; times of different versions are not compared."""
    target_accuracy: Annotated[Number, Field(gt=0, lt=1)]
    """Accuracy to reach on the test images, as a fraction."""
    runs: Annotated[Whole, Field(ge=1)]
    """Number of runs that the benchmark was to have; with `half_width`, the most it may have."""
    warmup_images: Count
    """Training images of the warm-up run, which is timed and discarded."""
    stop_at_target: Flag
    """Whether a run ends when it reaches the target."""
    half_width: Number | None = None
    """Relative half-width of the time's interval at which --runs auto stops; else null."""
    budget_seconds: Number | None = None
    """Seconds that all runs of --runs auto may take together; null without a limit."""


class ClockCheck(Model):
    """What the clock showed of a known piece of work, before anything was timed by it."""

    work: str
    """The work that the device did, in words."""
    asked_seconds: Seconds
    """Seconds until all work was queued, without waiting for the device."""
    done_seconds: Seconds
    """Seconds until the clock reported that the work was done."""
    left_seconds: Seconds
    """Seconds from then until a result was on the host; close to zero."""
    resolution_seconds: Seconds
    """Smallest difference between two readings of the clock."""


class ParityCheck(Model):
    """How far what was timed differs from the CPU in fp32; see `mnist_cnn.parity.Parity`.

    Records before version 11 compared one gradient, and nothing that comes after it: there the
    fields from `parameter_allowed` on are null. Before version 13 so are the last two.
    """

    images: Difference
    """Relative difference of the distorted images of a batch."""
    loss: Difference
    """Relative difference of the mean loss of a step, the largest of all steps."""
    gradient: Difference
    """Relative difference of the first update of the weights, both scaled to one length; of the
    gradient, before version 11."""
    parameter: str
    """Name of the parameter whose gradient differed most."""
    parameter_gradient: Difference
    """Relative difference of that parameter's gradient."""
    allowed: Difference
    """Largest difference of the gradient with which training starts."""
    parameter_allowed: Difference | None = None
    """The same for the gradient of one parameter."""
    selection: Difference | None = None
    """Share of the images with the largest losses that an epoch did not take."""
    image_losses: Difference | None = None
    """Relative difference of the losses by which images are chosen."""
    step: Difference | None = None
    """Relative difference of an update's length, the largest of all steps."""
    weights: Difference | None = None
    """Relative difference of the weights' change in all steps."""
    average: Difference | None = None
    """Relative difference of the averaged weights' change."""
    statistics: Difference | None = None
    """Relative difference of batch norm's statistics."""
    evaluation: Difference | None = None
    """Share of the evaluated images that are classified otherwise."""
    evaluation_loss: Difference | None = None
    """Relative difference of the mean loss of the evaluation."""
    graphs: Difference | None = None
    """Relative difference of steps that one graph replays together from those replayed one by one,
    of weights, average or losses the largest; 0 where no graph has several steps."""
    last_batch: Difference | None = None
    """Relative difference of the weights' change by a smaller last batch; 0 where no graph is made
    for one."""


class Calibration(Model):
    """How fast the machine itself was just before the first run, by a fixed piece of work.

    The same work on every machine of a kind, whatever is trained: a machine that is throttled,
    shared or another one behind the same name shows here.
    """

    work: str
    """The work in words, with size, precision and number of threads: only equal work compares."""
    flops_per_second: Annotated[Number, Field(gt=0)]
    """Operations per second of the fastest repetition; a multiply-add counts as two."""
    seconds: Seconds
    """Seconds that the whole calibration took."""


class WarmUp(Model):
    """How the warm-up went: it repeats until its laps are steady, within a limit."""

    lap_seconds: list[Seconds]
    """Seconds of each repetition, in order."""
    steady: Flag
    """Whether the last repetitions took equally long; otherwise the limit ended the warm-up."""


class PlanLink(Model):
    """The plan that was written before the benchmark's first run."""

    plan_sha256: str
    """SHA-256 of the plan's file."""
    previous_sha256: str | None
    """SHA-256 of the file of the record that the same process wrote before; null for its first."""


class KernelShape(Model):
    """Launch parameters of a Triton kernel; see `mnist_cnn.kernels.triton.shapes.Shape`."""

    kernel: str
    """Name of the kernel."""
    side: Annotated[Whole, Field(ge=1)]
    """Side of the images that it works on, in pixels."""
    pixels: Annotated[Whole, Field(ge=1)]
    """Number of pixels that a program takes at a time."""
    warps: Annotated[Whole, Field(ge=1)]
    """Number of warps of a program."""
    per_unit: Count
    """Number of programs per multiprocessor; 0 where each takes pixels once."""
    stages: Annotated[Whole, Field(ge=1)] | None
    """Stages of the pipeline that loads what comes next; null where there is none."""


class Fallback(Model):
    """Code of a step that was tried before the one that trained, and failed."""

    kernels: Kernels
    """What was to compute a step."""
    captured: Flag
    """Whether steps were to be captured as CUDA graphs."""
    kernel_shapes: list[KernelShape] | None
    """Launch parameters of Triton kernels; else null."""
    reason: str
    """The error, in one line."""

    @property
    def computed_by(self) -> str:
        """As `Setup.computed_by`."""
        return _computed_by(self.kernels, captured=self.captured)


class Setup(Model):
    """What the run ran on and with: as it was, not as it was requested."""

    device: str
    """torch's device type: cpu, cuda, mps, xpu."""
    device_name: str
    """Name that the training device reports."""
    processes: Annotated[Whole, Field(ge=1)]
    """Number of ranks, over all machines."""
    machines: Annotated[Whole, Field(ge=1)] = 1
    """Number of machines; each has the same number of processes."""
    parallel_seeds: Annotated[Whole, Field(ge=1)] = 1
    """Number of runs of the benchmark that ran at the same time, this run included: they share the
    machine, so times hold for that many runs."""
    threads: Annotated[Whole, Field(ge=1)]
    """Number of computing threads of each process."""
    precision: Literal["fp32", "bf16", "fp16"]
    """Precision of the activations and of matrix products."""
    kernels: Kernels = "torch"
    """What computes a step: torch's operators (the only choice before version 2), the same fused by
    torch's compiler, or compiled code of mnist_cnn.kernels."""
    captured: Flag = False
    """Whether the device recorded whole steps and replayed them (CUDA graphs)."""
    uncaptured_reason: str | None = None
    """Why steps were not captured, on a device that can capture them; else null."""
    fallbacks: list[Fallback] = Field(default_factory=list)
    """What would have trained, had it not failed on this device, in the order of the attempts."""
    kernel_shapes: list[KernelShape] | None = None
    """Launch parameters of the Triton kernels; null for other kernels."""
    matmul_precision: str
    """torch.get_float32_matmul_precision(): whether fp32 products may be rounded."""
    memory_format: str
    """Layout of images in memory, as torch names it."""
    dynamo_backend: str
    """torch.compile's backend; "no" where nothing is compiled."""
    accelerate_config: str | None
    """Path of Accelerate's default config file, the home folder as ~; null where there is none."""
    launcher: str
    """What started the ranks: "python", "accelerate" or "torchrun"."""
    environment: dict[str, str]
    """Environment variables that were set and that change speed or results."""

    @model_validator(mode="after")
    def _has_equally_many_processes_per_machine(self) -> Self:
        if self.processes % self.machines:
            raise ValueError("processes are not as many on every machine")
        return self

    @property
    def multiplies_in(self) -> Precision:
        """Precision of the products: some compiled code stores bf16 and multiplies in fp32."""
        return "fp32" if self.kernels in FP32_PRODUCTS else self.precision

    @property
    def computed_by(self) -> str:
        """`kernels`, and whether they were replayed from graphs: ``"triton graph"``."""
        return _computed_by(self.kernels, captured=self.captured)


def _computed_by(kernels: Kernels, *, captured: bool) -> str:
    return f"{kernels} graph" if captured else kernels


_EARLIER_KERNELS = {"native": "avx512-bf16", "avx512": "avx512-bf16"}
"""Names of compiled code in records up to version 8 and in plans of version 1, with today's."""


def with_todays_kernels(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a record or a plan with earlier names, with today's name of `setup.kernels`."""
    setup = values.get("setup")
    if not isinstance(setup, dict) or not isinstance(kernels := setup.get("kernels"), str):
        return values
    return values | {"setup": setup | {"kernels": _EARLIER_KERNELS.get(kernels, kernels)}}
