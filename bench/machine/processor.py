"""Which processor this is, beyond its name: vendor, model, microarchitecture, caches, core classes.

Functions that parse take text or a folder, so that they can be tried on what other machines report.
What the system does not report is None. Nothing here is a serial number.
Sources: Linux's Documentation/ABI/testing/sysfs-devices-system-cpu; Apple's sysctl(3).
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from bench.machine.system import read_proc, read_text, run_output, whole_number
from bench.records.schema import CoreClass, Processor

CPUS = Path("/sys/devices/system/cpu")
"""Linux's folder of processors."""
ARM_VENDORS = {
    "0x41": "ARM",
    "0x42": "Broadcom",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x48": "HiSilicon",
    "0x4e": "NVIDIA",
    "0x50": "APM",
    "0x51": "Qualcomm",
    "0x53": "Samsung",
    "0x56": "Marvell",
    "0x61": "Apple",
    "0x69": "Intel",
    "0x6d": "Microsoft",
    "0xc0": "Ampere",
}
"""Implementers of Arm's main identification register (MIDR_EL1)."""
_MOST_LEVELS = 4
_MACOS_CACHES = {"L1d": "l1dcachesize", "L2": "l2cachesize", "L3": "l3cachesize"}
MACOS_SETTINGS = (
    *(f"machdep.cpu.{name}" for name in ("brand_string", "vendor", "family", "model", "stepping")),
    *("hw.physicalcpu", "hw.nperflevels", "hw.cpufrequency_min", "hw.cpufrequency_max"),
    *(f"hw.perflevel{level}.physicalcpu" for level in range(_MOST_LEVELS)),
    *(f"hw.{name}" for name in _MACOS_CACHES.values()),
    *(f"hw.perflevel0.{name}" for name in _MACOS_CACHES.values()),
)
"""macOS's settings that are read. Level 0 is that of the fastest cores."""
_HYBRID_FOLDERS = ("cpu_core", "cpu_atom")
"""Linux's folders of the two kinds of cores of Intel's hybrid processors."""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_KHZ_PER_MHZ = 1e3
_HZ_PER_MHZ = 1e6

_Fields = Mapping[str, str]


class _Identity(TypedDict):
    """Which processor it is, by the numbers that it reports itself."""

    vendor: str | None
    family: int | None
    model: int | None
    stepping: int | None


def describe_processor() -> Processor | None:
    """This machine's processor; None where the system says nothing of it."""
    name = microarchitecture()
    if sys.platform == "darwin":
        # -i: a setting that this version of macOS lacks is left out, and is no failure.
        processor = processor_of_macos(run_output("sysctl", "-i", *MACOS_SETTINGS), name)
    else:
        processor = processor_of_linux(read_proc("cpuinfo"), CPUS, name)
    known = processor.vendor, processor.model, processor.microarchitecture
    return None if known == (None, None, None) else processor


def microarchitecture() -> str | None:
    """The microarchitecture's name by archspec; a level such as ``"x86_64_v4"`` if it knows none.

    A hypervisor that hides instructions makes archspec fall back to a level.
    """
    try:
        # Lazy: not every command needs it. It warns where it can read nothing.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import archspec.cpu

            return str(archspec.cpu.host().name) or None
    # It reads files and the processor itself, and no description may end a run.
    except Exception:
        return None


# Linux


def processor_of_linux(cpuinfo: str, cpus: Path, microarchitecture: str | None) -> Processor:
    """The processor by Linux's files.

    Args:
        cpuinfo: the content of /proc/cpuinfo.
        cpus: the folder /sys/devices/system/cpu.
        microarchitecture: archspec's name.
    """
    fields = _first_processor(cpuinfo)
    classes = core_classes(cpus)
    return Processor(
        **_identity(fields),
        microarchitecture=microarchitecture,
        cache_bytes=cache_sizes(cpus / "cpu0" / "cache"),
        core_classes=classes,
        min_mhz=min(_clocks(cpus, "cpuinfo_min_freq"), default=None),
        max_mhz=max(_clocks(cpus, "cpuinfo_max_freq"), default=None),
    )


def _first_processor(cpuinfo: str) -> dict[str, str]:
    """The fields of the first processor; of fields that come after a blank line, the first value.

    Some Arm kernels write the fields that all cores share into a paragraph of their own.
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _identity(fields: _Fields) -> _Identity:
    """Vendor, family, model and stepping, by the names of x86 or of Arm."""
    if implementer := fields.get("CPU implementer"):
        return {
            "vendor": ARM_VENDORS.get(implementer.lower(), implementer),
            "family": _whole(fields.get("CPU architecture")),
            "model": _whole(fields.get("CPU part")),
            "stepping": _whole(fields.get("CPU revision")),
        }
    return {
        "vendor": fields.get("vendor_id") or None,
        "family": _whole(fields.get("cpu family")),
        "model": _whole(fields.get("model")),
        "stepping": _whole(fields.get("stepping")),
    }


def cache_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each data cache that a core uses, by level: ``{"L1d": 32768, "L2": 1048576}``."""
    sizes = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (read_text(index / name).strip() for name in ("level", "type", "size"))
        matched = re.fullmatch(r"([0-9]{1,9})([KMG]?)", size)
        if matched is None or not level or kind == "Instruction":
            continue
        size_bytes = int(matched[1]) * _UNITS.get(matched[2], 1)
        if size_bytes:
            sizes[f"L{level}d" if kind == "Data" else f"L{level}"] = size_bytes
    return sizes


def core_classes(cpus: Path) -> list[CoreClass]:
    """The kinds of cores, fastest first; all cores are of one kind where Linux names no kinds.

    A core with two threads is one core. Clocks alone make no kind: many processors allow a higher
    clock to a few of their equal cores.
    """
    kinds = _core_kinds(cpus)
    cores: dict[str, tuple[int, float]] = {}
    for cpu, kind in kinds.items():
        # Threads of one core have the same list.
        siblings = read_text(cpus / cpu / "topology" / "thread_siblings_list").strip() or cpu
        clocks = _clocks(cpus, "cpuinfo_max_freq", cpu)
        cores[siblings] = kind, max([*clocks, cores.get(siblings, (kind, 0.0))[1]])
    numbers = Counter(kind for kind, _ in cores.values())
    classes = []
    for kind in sorted(numbers, reverse=True):
        fastest = max(mhz for of_kind, mhz in cores.values() if of_kind == kind)
        classes.append(CoreClass(cores=numbers[kind], max_mhz=fastest or None))
    return classes


def _core_kinds(cpus: Path) -> dict[str, int]:
    """A number for each logical processor, equal for cores of one kind, higher for faster ones."""
    names = sorted(path.name for path in cpus.glob("cpu[0-9]*") if (path / "topology").is_dir())
    capacities = {name: _whole(read_text(cpus / name / "cpu_capacity").strip()) for name in names}
    if len(set(capacities.values()) - {None}) > 1:
        return {name: capacity or 0 for name, capacity in capacities.items()}
    kinds = dict.fromkeys(names, 0)
    for rank, folder in enumerate(_HYBRID_FOLDERS):
        for number in _numbers(read_text(cpus.parent.parent / folder / "cpus")):
            if f"cpu{number}" in kinds:
                kinds[f"cpu{number}"] = len(_HYBRID_FOLDERS) - rank
    return kinds


def _numbers(text: str) -> list[int]:
    """The numbers of a list such as ``"0-3,8"``."""
    ranges = re.findall(r"\b([0-9]{1,5})(?:-([0-9]{1,5}))?\b", text)
    return [n for first, last in ranges for n in range(int(first), int(last or first) + 1)]


def _clocks(cpus: Path, name: str, cpu: str = "cpu[0-9]*") -> list[float]:
    """The clocks in MHz that the hardware allows to processors; empty where none is reported."""
    values = (_whole(read_text(file).strip()) for file in cpus.glob(f"{cpu}/cpufreq/{name}"))
    return [khz / _KHZ_PER_MHZ for khz in values if khz]


# macOS


def processor_of_macos(sysctl: str, microarchitecture: str | None) -> Processor:
    """The processor by macOS's settings.

    Args:
        sysctl: the output of ``sysctl`` for `MACOS_SETTINGS`: lines of the form "name: value".
        microarchitecture: archspec's name.
    """
    fields = _first_processor(sysctl)
    brand = fields.get("machdep.cpu.brand_string", "")
    is_apple = brand.startswith("Apple")
    classes = _performance_levels(fields)
    return Processor(
        vendor="Apple" if is_apple else fields.get("machdep.cpu.vendor") or None,
        # Apple's own processors have no numbers of this kind; their names say the model.
        family=_whole(fields.get("machdep.cpu.family")),
        model=_whole(fields.get("machdep.cpu.model")),
        stepping=_whole(fields.get("machdep.cpu.stepping")),
        microarchitecture=microarchitecture,
        cache_bytes=_macos_caches(fields),
        core_classes=classes,
        min_mhz=_mhz(fields.get("hw.cpufrequency_min")),
        max_mhz=_mhz(fields.get("hw.cpufrequency_max")),
    )


def _performance_levels(fields: _Fields) -> list[CoreClass]:
    """The levels of performance, 0 the fastest; one class where macOS has no levels."""
    levels = range(min(_whole(fields.get("hw.nperflevels")) or 0, _MOST_LEVELS))
    counts = [_whole(fields.get(f"hw.perflevel{level}.physicalcpu")) for level in levels]
    counts = [count for count in counts if count] or [_whole(fields.get("hw.physicalcpu"))]
    return [CoreClass(cores=count, max_mhz=None) for count in counts if count]


def _macos_caches(fields: _Fields) -> dict[str, int]:
    """The caches of a core of the fastest level."""
    sizes = {
        level: _whole(fields.get(f"hw.perflevel0.{name}")) or _whole(fields.get(f"hw.{name}"))
        for level, name in _MACOS_CACHES.items()
    }
    return {level: size for level, size in sizes.items() if size}


def _mhz(hertz: str | None) -> float | None:
    number = _whole(hertz)
    return number / _HZ_PER_MHZ if number else None


def _whole(text: str | None) -> int | None:
    return whole_number(text or "")
