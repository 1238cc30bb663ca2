"""Energy from the machine's counters: RAPL's files as from the kernel, NVML by a stand-in."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.machine import energy, nvml
from bench.machine.energy import (
    CounterReading,
    EnergyMeter,
    cpu_counters,
    gpu_counters,
    no_counters,
    used_joules,
)
from bench.machine.system import NotReported
from bench.records.schema import Energy
from tests.stand_ins.nvml_double import UUID, NvmlDouble, NVMLError, healthy

RANGE = 262_143_328_850


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages with memory and cores, as on a server, and zones that must not be counted."""
    for zone, name, microjoules in (
        ("intel-rapl:0", "package-0", 5_000_000),
        ("intel-rapl:0:0", "core", 1_000_000),
        ("intel-rapl:0:1", "dram", 700_000),
        ("intel-rapl:1", "package-1", 9_000_000),
        ("intel-rapl:2", "psys", 80_000_000),
        ("intel-rapl-mmio:0", "package-0", 5_000_000),
    ):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        count(tmp_path, zone, microjoules)
    return tmp_path


def count(powercap: Path, zone: str, microjoules: int) -> None:
    (powercap / zone / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows the only element of this list."""
    hand = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: hand[0])
    return hand


# RAPL


@pytest.mark.skipif(sys.platform == "darwin", reason="RAPL is Linux's")
def test_packages_and_their_memory_are_counted_and_nothing_twice(
    powercap: Path, clock: list[float]
) -> None:
    meter = EnergyMeter(cpu_counters(powercap), None)
    meter.start()
    clock[0] += 10
    count(powercap, "intel-rapl:0", 505_000_000)
    count(powercap, "intel-rapl:0:0", 400_000_000)
    count(powercap, "intel-rapl:0:1", 50_700_000)
    count(powercap, "intel-rapl:1", 259_000_000)
    count(powercap, "intel-rapl:2", 999_000_000)
    used = meter.stop()
    assert used.device.joules == pytest.approx(500 + 50 + 250)
    assert used.device.source == (
        "RAPL's package-0 (intel-rapl:0), RAPL's dram (intel-rapl:0:1), "
        "RAPL's package-1 (intel-rapl:1)"
    )
    assert used.host is None


@pytest.mark.skipif(sys.platform == "darwin", reason="RAPL is Linux's")
def test_a_counter_that_went_round_is_added_up(powercap: Path, clock: list[float]) -> None:
    count(powercap, "intel-rapl:0", RANGE - 1_000_000)
    meter = EnergyMeter(cpu_counters(powercap), None)
    meter.start()
    clock[0] += 10
    count(powercap, "intel-rapl:0", 2_000_000)
    assert meter.stop().device.joules == pytest.approx(3.0)


@pytest.mark.skipif(sys.platform == "darwin", reason="RAPL is Linux's")
def test_a_run_so_long_that_the_counter_may_have_gone_round_twice_has_none(
    powercap: Path, clock: list[float]
) -> None:
    """262 kJ at 600 W take 437 s: after that, 1 J may be 1 J or a whole wrap more."""
    meter = EnergyMeter(cpu_counters(powercap), None)
    meter.start()
    count(powercap, "intel-rapl:0", 6_000_000)
    count(powercap, "intel-rapl:0:1", 1_700_000)
    count(powercap, "intel-rapl:1", 10_000_000)
    clock[0] += 436
    assert meter.stop().device.joules == pytest.approx(3.0)
    clock[0] += 4
    used = meter.stop().device
    assert used.joules is None
    assert "may have wrapped more than once in 440 s" in used.source


@pytest.mark.skipif(sys.platform == "darwin", reason="RAPL is Linux's")
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() == 0, reason="root may read anything")
def test_counters_of_root_alone_are_null(powercap: Path) -> None:
    (powercap / "intel-rapl:1" / "energy_uj").chmod(0)
    with pytest.raises(NotReported, match="only root"):
        cpu_counters(powercap)()


def test_a_refusal_of_the_kernel_is_null(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, but it also works if root runs the tests."""
    real = Path.read_text

    def denied(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError
        return real(path)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "read_text", denied)
    assert reason(cpu_counters(powercap)) == (
        "only root can read RAPL's counters: see docs/energy.md"
    )


@pytest.mark.parametrize("content", ["", "much\n", "9" * 400])
def test_what_is_no_number_is_null(
    powercap: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (powercap / "intel-rapl:0" / "energy_uj").write_text(content)
    assert reason(cpu_counters(powercap)) == "RAPL's counters cannot be read: ValueError"


def test_no_rapl_is_null(tmp_path: Path) -> None:
    assert reason(cpu_counters(tmp_path / "none")).startswith("no RAPL counters")


@pytest.mark.slow
def test_this_machine_has_joules_or_a_reason() -> None:
    """The real counters of this machine, over a span that is long enough."""
    meter = EnergyMeter(cpu_counters(), None)
    meter.start()
    time.sleep(energy.SHORTEST_SECONDS + 0.1)
    used = meter.stop().device
    assert used.source
    assert (used.joules is not None) == used.source.startswith("RAPL's package")


def reason(counters: energy.CounterReader) -> str:
    """Why the counters cannot be read."""
    with pytest.raises(NotReported) as refusal:
        counters()
    return str(refusal.value)


# NVML


def gpu(double: NvmlDouble, monkeypatch: pytest.MonkeyPatch) -> list[nvml.Gpu]:
    monkeypatch.setitem(sys.modules, "pynvml", double)
    return nvml.open_gpus([UUID])


def test_boards_count_in_millijoules(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    double = NvmlDouble(healthy() | {"TotalEnergyConsumption": [7_000_000, 7_812_500]})
    meter = EnergyMeter(gpu_counters(gpu(double, monkeypatch)), no_counters("a test"))
    meter.start()
    clock[0] += 5
    used = meter.stop()
    assert used.device.joules == pytest.approx(812.5)
    assert used.device.source == "NVML's total energy of GPU 0"
    assert used.host is not None
    assert (used.host.joules, used.host.source) == (None, "a test")


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (NVMLError("Not Supported"), "NVML refuses TotalEnergyConsumption: Not Supported"),
        ([5_000, NVMLError("GPU is lost")], "NVML refuses TotalEnergyConsumption: GPU is lost"),
        ([5_000, 4_000], "NVML's total energy of GPU 0 ran backwards"),
        ([5_000, 5_000], "stood still: NVML's total energy of GPU 0"),
    ],
)
def test_a_virtual_gpu_may_refuse_or_stand_still(
    answers: object, reason: str, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    double = NvmlDouble(healthy() | {"TotalEnergyConsumption": answers})
    meter = EnergyMeter(gpu_counters(gpu(double, monkeypatch)), None)
    meter.start()
    clock[0] += 5
    used = meter.stop().device
    assert (used.joules, used.source) == (None, reason)


def test_the_real_library_answers_or_says_why_not() -> None:
    """On a machine without an NVIDIA driver, as most machines that run these tests."""
    pytest.importorskip("pynvml")
    with pytest.raises(NotReported, match="NVML cannot be used: "):
        nvml.open_gpus(["00000000-0000-0000-0000-000000000000"])


def test_no_binding_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NotReported, match="nvidia-ml-py is not installed"):
        nvml.open_gpus([UUID])


def test_a_part_of_a_gpu_has_no_counters_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReported, match="MIG"):
        gpu(NvmlDouble(healthy() | {"MigMode": (1, 1)}), monkeypatch)


@pytest.mark.gpu
def test_a_real_gpu_has_joules_or_a_reason() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpus = nvml.open_gpus([str(torch.cuda.get_device_properties(0).uuid)])
    meter = EnergyMeter(gpu_counters(gpus), None)
    meter.start()
    matrix = torch.ones(4096, 4096, device="cuda")
    end = time.monotonic() + energy.SHORTEST_SECONDS + 0.5
    while time.monotonic() < end:
        matrix = matrix @ matrix / 4096
        torch.cuda.synchronize()
    used = meter.stop().device
    if used.joules is None:
        assert "NVML" in used.source
    else:  # above a tenth of an idle data-centre GPU, below the limit of any board
        assert 10 < used.joules < 1500 * (energy.SHORTEST_SECONDS + 1)


# From readings to energy


def test_a_short_run_has_none(clock: list[float]) -> None:
    def read() -> Mapping[str, CounterReading]:
        return {"a counter": CounterReading(clock[0])}

    meter = EnergyMeter(read, None)
    meter.start()
    clock[0] += 1.9
    used = meter.stop().device
    assert (used.joules, used.source) == (
        None,
        "the run took 1.9 s: counters are too coarse below 2 s",
    )
    clock[0] += 0.1
    assert meter.stop().device.joules == pytest.approx(2.0)


def test_counters_that_came_or_went_are_no_sum() -> None:
    with pytest.raises(NotReported, match="other counters"):
        used_joules(
            {"a": CounterReading(1.0)}, {"a": CounterReading(2.0), "b": CounterReading(2.0)}, 5.0
        )


def test_a_run_that_was_not_begun_has_none() -> None:
    used: Energy = EnergyMeter(lambda: {"a": CounterReading(1.0)}, None).stop()
    assert used.device.joules is None


@given(
    start=st.integers(0, RANGE - 1),
    watts=st.floats(0.01, energy.MOST_WATTS),
    seconds=st.floats(energy.SHORTEST_SECONDS, 20_000),
)
def test_what_is_told_is_what_was_used(start: int, watts: float, seconds: float) -> None:
    """However often the counter wraps: the result is the true energy or none."""
    wraps = RANGE / 1e6
    used = watts * seconds
    before = {"a": CounterReading(start / 1e6, wraps)}
    after = {"a": CounterReading((start / 1e6 + used) % wraps, wraps)}
    try:
        assert used_joules(before, after, seconds) == pytest.approx(used, rel=1e-6, abs=1e-3)
    except NotReported:
        assert wraps <= energy.MOST_WATTS * seconds
