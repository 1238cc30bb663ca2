"""What this machine is, and how busy it was while a run was measured.

Holds no host name, user name, serial number or path: a record can be published as it is. Whatever
a platform does not tell is null, never guessed. torch is imported where it is needed only, so
that everything here can be asked for before it, and without it where the answer needs none.
"""

from __future__ import annotations

import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePosixPath

import psutil

from bench.records import Environment, Load, PeakMemory

CPU_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_bf16": "avx512_bf16",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
"""Instruction sets that decide the speed of matrix products: Linux's name -> ours."""

MACOS_CPU_FEATURES = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
"""sysctl name -> our name."""

PACKAGES = (
    "filelock",
    "numpy",
    "pillow",
    "psutil",
    "pydantic",
    "rich",
    "safetensors",
    "torchvision",
    "triton",
    "typer",
)
"""What a run uses besides torch and accelerate, which have fields of their own."""

ACCELERATOR_LIBRARIES = re.compile(r"nvidia-(cublas|cudnn|nccl|cuda-runtime)(-cu\d+)?")
"""Separately installed packages that an NVIDIA GPU's speed depends on."""

PROJECT = Path(__file__).resolve().parent.parent

_COMMAND_SECONDS = 10.0
"""After which a helper command (git, sysctl, ...) is given up on."""


def describe(device_type: str, device_name: str) -> Environment:
    """What machine and software this is.

    Args:
        device_type: torch's, "cpu", "cuda", "mps" or "xpu"; of an accelerator, the current one.
        device_name: what the device calls itself.
    """
    import torch

    commit, dirty = git_state(PROJECT)
    return Environment(
        device_name=device_name,
        device_memory_bytes=_device_memory_bytes(device_type),
        cpu=cpu_name(),
        cpu_features=cpu_features(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count() or os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        os=os_name(),
        virtual_machine=is_virtual_machine(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        driver=_driver(device_type),
        torch=str(torch.__version__),
        torch_build=_torch_build(),
        accelerate=metadata.version("accelerate"),
        packages=package_versions(device_type),
        commit=commit,
        dirty=dirty,
    )


# The processor and the system


def cpu_name() -> str:
    """The processor's own name, else its architecture."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    # Arm kernels give numbers in /proc/cpuinfo; lscpu knows their names.
    return (
        cpuinfo_field("model name")
        or _field(_output("lscpu"), "Model name")
        or platform.processor()
        or platform.machine()
    )


def cpu_features() -> list[str]:
    """Those of the instruction sets known here that this processor has."""
    if sys.platform == "darwin":
        return [ours for name, ours in MACOS_CPU_FEATURES.items() if _sysctl(name) == "1"]
    flags = _cpu_flags()
    return [ours for theirs, ours in CPU_FEATURES.items() if theirs in flags]


def is_virtual_machine() -> bool | None:
    """Whether a hypervisor runs below this system; None where the system does not say."""
    if sys.platform == "darwin":
        return {"0": False, "1": True}.get(_sysctl("kern.hv_vmm_present") or "")
    if "hypervisor" in _cpu_flags() or Path("/sys/hypervisor/type").exists():
        return True
    # Only x86 has a flag whose absence means something.
    return False if cpuinfo_field("flags") else None


def os_name() -> str:
    """Distribution and kernel, or the macOS version, with the architecture."""
    machine = platform.machine()
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {machine}"
    name = platform.system()
    with suppress(OSError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{name}, {platform.system()} {platform.release()} {machine}"


def usable_cores() -> int:
    """Cores this process may run on: its affinity, or its control group's quota if that is less."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        quota = cgroup_quota_cores()
        # A quota of 1.5 cores lets two threads run, now and then at once.
        return cores if quota is None else max(1, min(cores, math.ceil(quota)))
    return os.cpu_count() or 1


def cgroup_quota_cores(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The least CPU quota of this process's control group and those above it, in cores.

    Source: the kernel's cgroup documentation, `cpu.max` of version 2 and `cpu.cfs_quota_us` of
    version 1.
    """
    quotas: list[float | None] = []
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / "cpu" if controllers else mount
        own = PurePosixPath(path.lstrip("/"))
        # In a container the path may be the host's; the mount's own top counts in any case.
        quotas += [_quota_of(top / group) for group in (own, *own.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _text(group / "cpu.cfs_quota_us").strip()
        period = _text(group / "cpu.cfs_period_us").strip()
    # "max" (version 2) and -1 (version 1) mean that there is none.
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None


def cpuinfo_field(name: str) -> str | None:
    """A field of the first processor in Linux's /proc/cpuinfo."""
    return _field(_text(Path("/proc/cpuinfo")), name)


def _cpu_flags() -> set[str]:
    return set((cpuinfo_field("flags") or cpuinfo_field("Features") or "").split())


# The accelerator and the software


def device_name(device_type: str) -> str:
    """What the device of this type calls itself; of several, the current one."""
    import torch

    match device_type:
        case "cuda" | "xpu":
            return str(torch.get_device_module(device_type).get_device_name())
        case "mps":
            return f"{cpu_name()} GPU"
        case _:
            return cpu_name()


def _device_memory_bytes(device_type: str) -> int | None:
    """An accelerator's own memory; None for a CPU and for MPS, which share the machine's."""
    import torch

    if device_type == "cuda":
        return int(torch.cuda.get_device_properties().total_memory)
    if device_type == "xpu":
        return int(torch.xpu.get_device_properties().total_memory)
    return None


def _driver(device_type: str) -> str | None:
    import torch

    if device_type == "xpu":
        return str(torch.xpu.get_device_properties().driver_version)
    if device_type != "cuda":
        return None
    if torch.version.hip:
        return _text(Path("/sys/module/amdgpu/version")).strip() or None
    return nvidia_driver(_text(Path("/proc/driver/nvidia/version"))) or _nvidia_smi_driver()


def nvidia_driver(kernel_module: str) -> str | None:
    """The driver's version, from what its kernel module says in /proc/driver/nvidia/version."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", kernel_module)
    return found.group(1) if found else None


def _nvidia_smi_driver() -> str | None:
    # No file says it under WSL.
    lines = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return next(iter(lines.split()), None)


def _torch_build() -> str | None:
    """What torch was built for; None for a build that knows the CPU (or MPS) alone."""
    import torch

    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return None


def package_versions(device_type: str) -> dict[str, str]:
    """Installed versions of `PACKAGES` and, for a GPU, of the libraries it computes with."""
    versions = {}
    for distribution in metadata.distributions():
        name = distribution.name
        library = device_type == "cuda" and ACCELERATOR_LIBRARIES.fullmatch(name)
        if name in PACKAGES or library:
            versions[name] = distribution.version
    return dict(sorted(versions.items()))


def git_state(project: Path) -> tuple[str | None, bool | None]:
    """The commit checked out, and whether tracked files outside results/ differ from it.

    Records are results, not code: writing one must not make the next one "dirty".
    """
    # A copy installed inside somebody else's repository must not report theirs.
    if not (project / ".git").exists():
        return None, None
    lines = _output(
        "git",
        "-C",
        str(project),
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=no",
        "--",
        ".",
        ":(exclude)results",
    ).splitlines()
    head = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    if head is None or head == "(initial)":
        return None, None
    return head, any(not line.startswith("#") for line in lines)


# The load


class Meter:
    """How busy the machine was, and how much memory the run held, between `start` and `stop`."""

    def __init__(self, device_type: str) -> None:
        """Meter the process it is made in; several ranks have one each."""
        self._device_type = device_type
        self._load = LoadMeter()
        self._memory_is_this_runs = False

    def start(self) -> None:
        """The run begins."""
        self._memory_is_this_runs = reset_peak_memory(self._device_type)
        self._load.start()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`."""
        return self._load.own_cpu_seconds()

    def stop(self, own_seconds: float | None = None) -> tuple[Load, PeakMemory]:
        """The run is over.

        Args:
            own_seconds: what all ranks *on this machine* used together; without it, this
                process's, which is right for one rank.
        """
        load = self._load.stop(own_seconds)
        return load, peak_memory(self._device_type, since_reset=self._memory_is_this_runs)


class LoadMeter:
    """How much the machine did in a span of time, and how much of it was this run.

    `busy_seconds - own_seconds` is what others took: the core-seconds in which cores were busy
    elsewhere, or the hypervisor had them. Both are kept, so that a reader can judge.
    """

    def __init__(self) -> None:
        """Not started."""
        self._average: float | None = None
        self._busy = (0.0, 0.0)
        self._own = 0.0
        self._began = 0.0

    def start(self) -> None:
        """The span begins."""
        self._average = _load_average()
        self._busy = _busy_and_all_seconds()
        self._own = own_cpu_seconds()
        # The length of this span, not a lap: no device is waited for.
        self._began = time.monotonic()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`."""
        return max(0.0, own_cpu_seconds() - self._own)

    def stop(self, own_seconds: float | None = None) -> Load:
        """The span ends.

        Args:
            own_seconds: what all ranks on this machine used together, of several.
        """
        own = self.own_cpu_seconds() if own_seconds is None else own_seconds
        elapsed = time.monotonic() - self._began
        busy, total = (
            now - then for now, then in zip(_busy_and_all_seconds(), self._busy, strict=True)
        )
        return Load(
            load_average_before=self._average,
            load_average_after=_load_average(),
            # Sandboxes without a /proc/stat of their own show counters that stand still.
            busy_seconds=max(0.0, busy) if total > 0 else None,
            own_seconds=own,
            elapsed_seconds=elapsed,
        )


def own_cpu_seconds() -> float:
    """Core-seconds used so far by this process and its children, living and ended."""
    seconds = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        seconds += usage.ru_utime + usage.ru_stime
    # What ended children used is in RUSAGE_CHILDREN once they have been waited for; those that
    # live (a DataLoader's workers) are asked themselves.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _busy_and_all_seconds() -> tuple[float, float]:
    """Seconds since boot in which the usable cores were busy (or stolen), and all that passed."""
    cores = psutil.cpu_times(percpu=True)
    if sys.platform == "linux":
        usable = os.sched_getaffinity(0)
        cores = [times for index, times in enumerate(cores) if index in usable]
    busy = total = 0.0
    for times in (core._asdict() for core in cores):
        # Linux counts a guest's time into user and nice as well.
        passed = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        busy += passed - times["idle"] - times.get("iowait", 0.0)
        total += passed
    return busy, total


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


# Memory

_CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak_memory(device_type: str) -> bool:
    """Let the peak count from now on; False where it can only count from the process's start."""
    import torch

    match device_type:
        case "cuda" | "xpu":
            torch.get_device_module(device_type).reset_peak_memory_stats()
            return True
        case "cpu":
            # Source: proc(5), /proc/pid/clear_refs: 5 resets the peak resident set (VmHWM).
            with suppress(OSError):
                _CLEAR_REFS.write_text("5")
                return True
    return False


def peak_memory(device_type: str, *, since_reset: bool = False) -> PeakMemory:
    """The most memory held by this process on its device.

    Args:
        device_type: torch's.
        since_reset: what `reset_peak_memory` returned at the start of the span.
    """
    import torch

    span = "since the run began" if since_reset else "since the process began"
    match device_type:
        case "cuda" | "xpu":
            peak = int(torch.get_device_module(device_type).max_memory_allocated())
            return _known_peak(
                peak,
                f"torch.{device_type}.max_memory_allocated {span}: "
                "tensors, without the allocator's reserve and the driver's context",
            )
        case "cpu":
            return _resident_peak(span)
        case _:
            return PeakMemory(bytes=None, source=f"{device_type} keeps no peak of its memory")


def _resident_peak(span: str) -> PeakMemory:
    own = "resident memory of this process, without its workers"
    high_water = _field(_text(Path("/proc/self/status")), "VmHWM")
    if high_water is not None:
        kibibytes = int(high_water.removesuffix("kB"))
        return _known_peak(kibibytes * 1024, f"VmHWM {span}: {own}")
    # Linux counts in KiB, macOS in bytes; neither can be reset.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _known_peak(peak, f"ru_maxrss since the process began: {own}")


def _known_peak(peak_bytes: int, source: str) -> PeakMemory:
    """Never 0: a counter that stands at nothing has not counted."""
    if peak_bytes > 0:
        return PeakMemory(bytes=peak_bytes, source=source)
    return PeakMemory(bytes=None, source=f"{source}; it counted nothing")


# Asking the system


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str | None:
    """The value in the first line that reads "name : value"."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip() or None
    return None


def _sysctl(name: str) -> str | None:
    return _output("sysctl", "-n", name).strip() or None


def _output(*command: str) -> str:
    """What a command prints; nothing where there is no such command or it fails."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    # A hook's GIT_DIR would answer for another repository; git must not write its index here.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [program, *command[1:]],
            env=inherited | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
