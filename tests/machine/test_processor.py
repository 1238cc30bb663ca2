"""Which processor it is, by excerpts of what real machines report."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.machine import processor
from bench.machine.processor import processor_of_linux, processor_of_macos
from bench.records.schema import CoreClass

ZEN_4 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9654 96-Core Processor
stepping\t: 1
microcode\t: 0xa10110d
cpu MHz\t\t: 2400.000
cache size\t: 1024 KB

processor\t: 1
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 99
"""
ZEN_5 = """\
processor : 0
vendor_id : AuthenticAMD
cpu family  : 26
model   : 68
model name  : AMD Ryzen 9 9950X 16-Core Processor
stepping  : 0
"""
ARROW_LAKE = """\
processor       : 0
vendor_id       : GenuineIntel
cpu family      : 6
model           : 198
model name      : Intel(R) Core(TM) Ultra 9 285
stepping        : 2
"""
GRAVITON_3 = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1
"""
M2 = """\
hw.perflevel0.physicalcpu: 4
hw.perflevel0.l1dcachesize: 131072
hw.perflevel0.l2cachesize: 16777216
hw.perflevel1.physicalcpu: 4
hw.physicalcpu: 8
hw.l1dcachesize: 65536
hw.l2cachesize: 4194304
hw.nperflevels: 2
machdep.cpu.brand_string: Apple M2
"""
INTEL_MAC = """\
hw.physicalcpu: 4
hw.cpufrequency_min: 2600000000
hw.cpufrequency_max: 2600000000
hw.l1dcachesize: 32768
hw.l2cachesize: 262144
hw.l3cachesize: 6291456
machdep.cpu.vendor: GenuineIntel
machdep.cpu.brand_string: Intel(R) Core(TM) i7-6700HQ CPU @ 2.60GHz
machdep.cpu.family: 6
machdep.cpu.model: 94
machdep.cpu.stepping: 3
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def cpus(tmp_path: Path) -> Path:
    """Linux's folder of processors, empty yet."""
    folder = tmp_path / "devices" / "system" / "cpu"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (ZEN_4, ("AuthenticAMD", 25, 17, 1)),
        (ZEN_5, ("AuthenticAMD", 26, 68, 0)),
        (ARROW_LAKE, ("GenuineIntel", 6, 198, 2)),
        (GRAVITON_3, ("ARM", 8, 0xD40, 1)),
        ("CPU implementer : 0x99\nCPU part : no number\n", ("0x99", None, None, None)),
        ("", (None, None, None, None)),
    ],
)
def test_linux_names_the_processor_by_its_numbers(
    cpuinfo: str, expected: tuple[str | int | None, ...], cpus: Path
) -> None:
    found = processor_of_linux(cpuinfo, cpus, "a name")
    assert (found.vendor, found.family, found.model, found.stepping) == expected
    assert found.microarchitecture == "a name"
    assert (found.cache_bytes, found.core_classes) == ({}, [])
    assert (found.min_mhz, found.max_mhz) == (None, None)


def test_caches_are_those_of_the_first_core_without_the_one_for_instructions(cpus: Path) -> None:
    caches = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K")]
    caches += [("3", "Unified", "32M"), ("4", "Unified", "nonsense"), ("", "Unified", "1K")]
    for index, values in enumerate(caches):
        names = (f"cpu0/cache/index{index}/{name}" for name in ("level", "type", "size"))
        write(cpus, dict(zip(names, values, strict=True)))
    expected = {"L1d": 48 * 1024, "L2": 1024**2, "L3": 32 * 1024**2}
    assert processor_of_linux(ZEN_5, cpus, None).cache_bytes == expected


def test_a_hybrid_processor_has_two_kinds_of_cores_and_its_threads_are_no_cores(
    cpus: Path,
) -> None:
    """Two fast cores of two threads each and three slow ones, as Linux has them since 5.13."""
    siblings = ["0-1", "0-1", "2-3", "2-3", "4", "5", "6"]
    for cpu, list_ in enumerate(siblings):
        fast = cpu < 4
        write(
            cpus / f"cpu{cpu}",
            {
                "topology/thread_siblings_list": list_,
                "cpufreq/cpuinfo_max_freq": "5600000" if fast else "4600000",
                "cpufreq/cpuinfo_min_freq": "800000",
            },
        )
    write(cpus.parent.parent, {"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-5,6"})
    found = processor_of_linux(ARROW_LAKE, cpus, "arrowlake_s")
    assert found.core_classes == [
        CoreClass(cores=2, max_mhz=5600),
        CoreClass(cores=3, max_mhz=4600),
    ]
    assert (found.min_mhz, found.max_mhz) == (800, 5600)


def test_capacities_are_kinds_of_cores(cpus: Path) -> None:
    """As on Arm's big.LITTLE."""
    for cpu, capacity in enumerate(["446", "446", "1024"]):
        files = {"cpu_capacity": capacity, "topology/thread_siblings_list": str(cpu)}
        write(cpus / f"cpu{cpu}", files)
    classes = processor_of_linux(GRAVITON_3, cpus, None).core_classes
    assert [kind.cores for kind in classes] == [1, 2]
    assert all(kind.max_mhz is None for kind in classes)


@pytest.mark.parametrize("capacity", [{}, {"cpu_capacity": "1024"}])
def test_equal_cores_are_one_kind_whatever_the_kernel_reports(
    capacity: dict[str, str], cpus: Path
) -> None:
    """A newer kernel, and a few cores with a higher clock, make no other machine of it."""
    for cpu, clock in enumerate(["5700000", "5500000"]):
        files = {"topology/thread_siblings_list": str(cpu), "cpufreq/cpuinfo_max_freq": clock}
        write(cpus / f"cpu{cpu}", files | capacity)
    found = processor_of_linux(ZEN_5, cpus, None).core_classes
    assert found == [CoreClass(cores=2, max_mhz=5700)]


def test_an_apple_processor_has_the_caches_of_its_fastest_cores() -> None:
    found = processor_of_macos(M2, "m2")
    assert (found.vendor, found.microarchitecture) == ("Apple", "m2")
    assert (found.family, found.model, found.stepping) == (None, None, None)
    assert found.cache_bytes == {"L1d": 131072, "L2": 16777216}
    assert [kind.cores for kind in found.core_classes] == [4, 4]


def test_an_intel_mac_is_known_by_its_numbers() -> None:
    found = processor_of_macos(INTEL_MAC, "skylake")
    identity = found.vendor, found.family, found.model, found.stepping
    assert identity == ("GenuineIntel", 6, 94, 3)
    assert found.cache_bytes == {"L1d": 32768, "L2": 262144, "L3": 6291456}
    assert [kind.cores for kind in found.core_classes] == [4]
    assert (found.min_mhz, found.max_mhz) == (2600, 2600)


def test_a_system_that_says_nothing_has_no_processor(
    monkeypatch: pytest.MonkeyPatch, cpus: Path
) -> None:
    monkeypatch.setattr(processor, "read_proc", lambda name: "")
    monkeypatch.setattr(processor, "run_output", lambda *command: "")
    monkeypatch.setattr(processor, "CPUS", cpus)
    monkeypatch.setattr(processor, "microarchitecture", lambda: None)
    assert processor.describe_processor() is None


def test_an_archspec_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import archspec.cpu

    def fail() -> None:
        raise KeyError("an unknown processor")

    monkeypatch.setattr(archspec.cpu, "host", fail)
    assert processor.microarchitecture() is None


def test_numbers_that_no_kernel_writes_are_none(cpus: Path) -> None:
    write(cpus / "cpu0" / "cache" / "index9", {"level": "9", "type": "Unified", "size": "9" * 30})
    folder = cpus.parent.parent / "cpu_core"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpus").write_text("0-99999999999")  # would be a list of all these
    assert "L9" not in processor_of_linux("", cpus, None).cache_bytes
