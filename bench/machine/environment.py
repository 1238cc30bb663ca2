"""What this machine is: hardware, system and software.

There is no host name, user name, serial number or path in it, so that a record can be published as
it is. A value that the platform does not report is null, never guessed. torch is imported inside
the functions that need it, so that the others work before torch is loaded, or without it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil

from bench.machine.cores import cgroup_quota_cores, usable_cores
from bench.machine.gpu_identity import describe_gpu
from bench.machine.package import package_version
from bench.machine.processor import describe_processor
from bench.machine.repository import PROJECT, code_state, source_digest
from bench.machine.system import (
    read_field,
    read_proc,
    read_sysctl,
    read_text,
    require_proc,
    run_output,
)
from bench.records.machine import PACKAGE
from bench.records.schema import Environment

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
"""Instruction sets that decide the speed of matrix products, by their names in Linux.

`MachineKey` has them: with a new name here, a machine is another one than in its earlier records.
"""

MACOS_CPU_FEATURES = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
"""The same instruction sets, by their sysctl names."""

PACKAGES = (
    "archspec",
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
"""Packages that a run uses; torch and accelerate are not here, they have their own fields."""

ACCELERATOR_LIBRARIES = ("nvidia-cublas", "nvidia-cudnn", "nvidia-nccl", "nvidia-cuda-runtime")
"""Packages that the speed of an NVIDIA GPU depends on and that are installed separately; some have
CUDA's version behind the name, as in `nvidia-cudnn-cu13`."""


def describe_environment(device_type: str, device_name: str) -> Environment:
    """Describe the machine and the software.

    Args:
        device_type: torch's name, "cpu", "cuda", "mps" or "xpu"; for an accelerator, the current
            device is described.
        device_name: name that the device reports, as from `device_name`.

    Raises:
        UsageError: the system does not tell what it is.
    """
    import torch

    require_proc()
    code = code_state(PROJECT)
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
        packages=package_versions(device_type) | ({} if code.commit else own_version()),
        commit=code.commit,
        dirty=code.dirty,
        commit_unknown_reason=code.unknown_reason,
        processor=describe_processor(),
        gpu=describe_gpu(device_type),
        quota_cores=cgroup_quota_cores() if sys.platform == "linux" else None,
        source_sha256=source_digest(PROJECT),
        library_sha256=library_digest(),
    )


# The processor and the system


def cpu_name() -> str:
    """The name that the processor reports, else its architecture."""
    if sys.platform == "darwin":
        return read_sysctl("machdep.cpu.brand_string") or platform.machine()
    # On Arm, /proc/cpuinfo has numbers only; lscpu knows the names.
    return (
        cpuinfo_field("model name")
        or read_field(run_output("lscpu"), "Model name")
        or platform.processor()
        or platform.machine()
    )


def cpu_features() -> list[str]:
    """The instruction sets of `CPU_FEATURES` that this processor has."""
    if sys.platform == "darwin":
        return [name for key, name in MACOS_CPU_FEATURES.items() if read_sysctl(key) == "1"]
    flags = _cpu_flags()
    return [name for flag, name in CPU_FEATURES.items() if flag in flags]


def is_virtual_machine() -> bool | None:
    """Whether this system runs on a hypervisor; None if the system does not report it."""
    if sys.platform == "darwin":
        return {"0": False, "1": True}.get(read_sysctl("kern.hv_vmm_present") or "")
    if "hypervisor" in _cpu_flags() or Path("/sys/hypervisor/type").exists():
        return True
    # On x86 a missing flag means that there is no hypervisor. Other processors have no such flag.
    return False if cpuinfo_field("flags") else None


def os_name() -> str:
    """Name and version of the operating system, with the architecture."""
    machine = platform.machine()
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {machine}"
    name = platform.system()
    with suppress(OSError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{name}, {platform.system()} {platform.release()} {machine}"


def cpuinfo_field(name: str) -> str | None:
    """A field of the first processor in Linux's /proc/cpuinfo."""
    return read_field(read_proc("cpuinfo"), name)


def _cpu_flags() -> set[str]:
    return set((cpuinfo_field("flags") or cpuinfo_field("Features") or "").split())


# The accelerator and the software


def device_name(device_type: str) -> str:
    """The name that the current device of this type reports."""
    import torch

    match device_type:
        case "cuda" | "xpu":
            return str(torch.get_device_module(device_type).get_device_name())
        case "mps":
            return f"{cpu_name()} GPU"
        case _:
            return cpu_name()


def _device_memory_bytes(device_type: str) -> int | None:
    """An accelerator's own memory; None for CPU and MPS, which use the machine's memory."""
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
        return read_text(Path("/sys/module/amdgpu/version")).strip() or None
    return nvidia_driver(read_proc("driver/nvidia/version")) or _nvidia_smi_driver()


def nvidia_driver(kernel_module: str) -> str | None:
    """The version in the text of /proc/driver/nvidia/version; None if there is none."""
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", kernel_module)
    return match.group(1) if match else None


def _nvidia_smi_driver() -> str | None:
    # Under WSL there is no such file.
    lines = run_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return next(iter(lines.split()), None)


def _torch_build() -> str | None:
    """The GPU platform that torch was built for; None for a build for CPU or MPS only."""
    import torch

    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return None


def library_digest() -> str | None:
    """SHA-256 of the compiled training step that a process here would load; None without one."""
    # Lazy: it imports what computes a step.
    from mnist_cnn.kernels.native.library import LIBRARY

    try:
        return hashlib.sha256(LIBRARY.read_bytes()).hexdigest()
    except OSError:
        return None


def own_version() -> dict[str, str]:
    """Version of this package, by its name; empty where it is not known."""
    version = package_version()
    return {} if version is None else {PACKAGE: version}


def package_versions(device_type: str) -> dict[str, str]:
    """Installed versions of `PACKAGES` and, for CUDA, of `ACCELERATOR_LIBRARIES`."""
    names = [*PACKAGES, *(_accelerator_libraries() if device_type == "cuda" else ())]
    versions = {}
    # One by one: to go through all that is installed would read the description of each.
    for name in sorted(names):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _accelerator_libraries() -> Iterator[str]:
    """Every name that a library may have with the CUDA that torch was built for."""
    import torch

    version = torch.version.cuda or ""
    for library in ACCELERATOR_LIBRARIES:
        yield from (library, f"{library}-cu{version.partition('.')[0]}")
