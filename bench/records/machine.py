"""Parts of a record: the machine and its software, and what the machine did during the run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bench.records.model import Count, Flag, Model, Number, Seconds, Whole

PACKAGE = "mnist-bench"
"""Name of this package, as it is installed."""


class PeakMemory(Model):
    """The most memory that the run held."""

    bytes: Annotated[Whole, Field(gt=0)] | None
    """Bytes at the peak; null where they are not known."""
    source: str
    """What counted the bytes, or why they are not known."""


class Load(Model):
    """How busy the machine was, with this run and with other programs."""

    load_average_before: Number | None
    """One-minute load average when the run started; null where the system has none."""
    load_average_after: Number | None
    """One-minute load average when the run ended; null where the system has none."""
    busy_seconds: Seconds | None
    """Core-seconds in which any core was busy, or taken away by the hypervisor, during the run."""
    own_seconds: Seconds | None
    """Core-seconds of `busy_seconds` that the run's own processes used."""
    elapsed_seconds: Seconds
    """Seconds from the start of the run to its end."""
    usable_cores_before: Annotated[Whole, Field(ge=1)] | None = None
    """Number of cores that the process was allowed to use (its CPU affinity) when the run started;
    null where the system has no affinity, and in records before version 8."""
    usable_cores_after: Annotated[Whole, Field(ge=1)] | None = None
    """The same number when the run ended."""
    quota_cores_before: Annotated[Number, Field(gt=0)] | None = None
    """CPU quota of the control group in cores when the run started; null where there is none."""
    quota_cores_after: Annotated[Number, Field(gt=0)] | None = None
    """The same quota when the run ended."""
    throttled_seconds: Seconds | None = None
    """Seconds during the run in which the quota stopped threads of the control group; null where
    the system does not count them, and in records before version 8."""


class Joules(Model):
    """Energy by one counter."""

    joules: Annotated[Number, Field(ge=0)] | None
    """Energy in joules; null where it is not known."""
    source: str
    """What counted the energy, or why it is not known."""


class Energy(Model):
    """Energy used from the run's start to its end, evaluation included."""

    device: Joules
    """Energy of the training device: the GPUs' boards, or the machine's processors and memory."""
    host: Joules | None
    """Energy of the processors and memory beside an accelerator; null where these are the training
    device, or in one package with it."""


class GpuState(Model):
    """A GPU at one moment. A field is null where the driver refuses it; `refused` says why."""

    sm_clock_mhz: Count | None
    """Clock of the multiprocessors in MHz."""
    memory_clock_mhz: Count | None
    """Clock of the memory in MHz."""
    temperature_celsius: Whole | None
    """Temperature of the chip in degrees Celsius."""
    power_watts: Annotated[Number, Field(ge=0)] | None
    """Mean power over up to the last second."""
    utilization: Annotated[Number, Field(ge=0)] | None
    """Share of up to the last second in which anything ran on the GPU, this run included."""
    memory_used_bytes: Count | None
    """Memory in use, by all processes and the driver."""
    throttle_reasons: list[str] | None
    """What limits the clocks."""
    other_processes: Count | None
    """Number of computing processes besides the run's own."""
    others_memory_bytes: Count | None
    """Part of `memory_used_bytes` that the other processes use."""
    refused: dict[str, str]
    """Why a field is null, by the field's name."""


class GpuWatch(Model):
    """A GPU before, during and after a run."""

    before: GpuState
    """The GPU just before the run."""
    after: GpuState
    """The GPU just after the run."""
    throttled_seconds: dict[str, Seconds] | None
    """Seconds during the run in which clocks were limited, by reason: power, heat, board limit."""
    source: str
    """What counted `throttled_seconds`, or why they are not known."""


class Monitoring(Model):
    """The state of the training device, before, during and after a run."""

    gpus: list[GpuWatch]
    """The GPUs that trained; empty without one that reports its state."""
    gpus_source: str
    """What reported the GPUs' state, or why there is none."""
    cpu_mhz_before: Annotated[Number, Field(ge=0)] | None
    """Mean clock of the cores before the run, as the system reports it; null if it does not."""
    cpu_mhz_after: Annotated[Number, Field(ge=0)] | None
    """Mean clock of the cores after the run, as the system reports it; null if it does not."""
    cpu_throttle_events: Count | None
    """How often a core or its package was slowed down for heat during the run."""
    cpu_throttle_source: str
    """What counted the throttle events, or why they are not known."""


class CoreClass(Model):
    """Cores of one kind, in a processor that has several kinds."""

    cores: Annotated[Whole, Field(ge=1)]
    """Number of cores of this kind."""
    max_mhz: Annotated[Number, Field(gt=0)] | None
    """Highest clock of these cores; null where the system does not report it."""


class Processor(Model):
    """Which processor this is, beyond its name. A field is null where the system is silent."""

    vendor: str | None
    """Vendor's identifier: ``"AuthenticAMD"``, ``"GenuineIntel"``, ``"ARM"``, ``"Apple"``."""
    family: Count | None
    """CPU family on x86; on Arm the architecture's version."""
    model: Count | None
    """Model within the family; on Arm the part number."""
    stepping: Count | None
    """Stepping on x86; on Arm the revision."""
    microarchitecture: str | None
    """Name by archspec: ``"zen5"``, ``"sapphirerapids"``, ``"m2"``."""
    cache_bytes: dict[str, Annotated[Whole, Field(gt=0)]]
    """Size of one cache of each level that the first core uses: ``"L1d"``, ``"L2"``, ``"L3"``."""
    core_classes: list[CoreClass]
    """The kinds of cores, fastest first; empty where the system does not report them."""
    min_mhz: Annotated[Number, Field(gt=0)] | None
    """Lowest clock that the hardware allows."""
    max_mhz: Annotated[Number, Field(gt=0)] | None
    """Highest clock that the hardware allows."""


class Gpu(Model):
    """Which GPU trains, beyond its name. A field is null where the driver is silent."""

    compute_capability: str | None
    """``"9.0"`` for NVIDIA's Hopper, ``"gfx942"`` for AMD's MI300; null for other vendors."""
    multiprocessors: Count | None
    """Number of streaming multiprocessors, or compute units."""
    power_limit_watts: Annotated[Number, Field(gt=0)] | None
    """Power limit that is in force, rounded to a watt."""
    max_memory_clock_mhz: Count | None
    """Highest clock of the memory in MHz."""
    max_sm_clock_mhz: Count | None
    """Highest clock of the multiprocessors in MHz."""


class Environment(Model):
    """The machine and its software. Holds no host name, user name or serial number."""

    device_name: str
    """Name that the training device reports."""
    device_memory_bytes: Whole | None
    """Memory of the accelerator in bytes; null without one, and where it does not say."""
    cpu: str
    """Name that the processor reports."""
    cpu_features: list[str]
    """Instruction sets that decide the speed of matrix products, among those this code knows."""
    physical_cores: Whole | None
    """Number of physical cores of the machine; null where the system does not say."""
    logical_cores: Whole
    """Number of logical cores of the machine, hyperthreads included."""
    usable_cores: Whole
    """Number of cores that the process may run on."""
    memory_bytes: Whole
    """Memory of the machine in bytes."""
    os: str
    """Name and version of the operating system, with the architecture."""
    virtual_machine: Flag | None
    """Whether the machine is a virtual one; null where the system does not say."""
    python: str
    """Implementation and version of Python."""
    driver: str | None
    """Version of the accelerator's driver; null without an accelerator."""
    torch: str
    """Version of torch."""
    torch_build: str | None
    """CUDA or ROCm version that torch was built for; null without one."""
    accelerate: str
    """Version of Accelerate."""
    packages: dict[str, str]
    """Versions of all other installed packages that a run uses; of this package as well, where
    there is no commit."""
    commit: str | None
    """Commit of this repository; null where it is unknown."""
    dirty: Flag | None
    """Whether tracked files differed from that commit; null where that is unknown."""
    processor: Processor | None = None
    """Null in records before version 8."""
    gpu: Gpu | None = None
    """The training GPU; null on a CPU, and in records before version 8."""
    quota_cores: Annotated[Number, Field(gt=0)] | None = None
    """CPU quota of the control group, such as a container's, in cores; null without a quota, and in
    records before version 8."""
    source_sha256: str | None = None
    """SHA-256 of the source code that ran; see `bench.machine.repository.source_digest`. Null in
    records before version 8."""
    library_sha256: str | None = None
    """SHA-256 of the compiled training step that was loaded; null where none was, and in records
    before version 8."""
    commit_unknown_reason: str | None = None
    """Why `commit` is null: no checkout, no git, or what git said; null where the commit is known,
    and in records before version 10."""

    @property
    def version(self) -> str | None:
        """Version of this package in an installed copy; None where a commit says which code ran."""
        return self.packages.get(PACKAGE)
