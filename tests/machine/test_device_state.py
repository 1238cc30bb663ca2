"""The device state around a run: the kernel's files, a stand-in for NVML, and the warnings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.analysis import result_warnings
from bench.analysis.result_warnings import ResultWarning, run_warnings
from bench.machine import nvml
from bench.machine.device_state import REASONS, DeviceMonitor, gpu_state, named_reasons
from bench.machine.system import NotReported
from bench.records.schema import GpuState
from tests.factories import gpu_state as state, make_record, monitoring
from tests.stand_ins.nvml_double import (
    GIB,
    UUID,
    NvmlDouble,
    NVMLError,
    NVMLLibraryMismatchError,
    healthy,
    processes,
    violations,
)

OWN = os.getpid()


@pytest.fixture(autouse=True)
def _usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def gpus(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[nvml.Gpu]:
    monkeypatch.setitem(sys.modules, "pynvml", NvmlDouble(answers))
    return nvml.open_gpus([UUID])


def read_state(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> GpuState:
    [gpu] = gpus(answers, monkeypatch)
    return gpu_state(gpu)


# A GPU


def test_a_gpu_is_read_in_the_units_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_state(healthy(), monkeypatch) == GpuState.model_validate(state())


def test_a_driver_that_refuses_everything_has_a_reason_for_every_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [gpu] = gpus({}, monkeypatch)
    monitor = DeviceMonitor([gpu], "NVML")
    monitor.start()
    [watch] = monitor.stop().gpus
    values = watch.after.model_dump()
    refused = values.pop("refused")
    assert set(values.values()) == {None}
    assert refused.keys() == values.keys()
    assert all("Not Supported" in why or "no processes" in why for why in refused.values())
    assert watch.throttled_seconds is None
    assert watch.source == "NVML refuses ViolationStatus: Not Supported"


@pytest.mark.parametrize(
    "error", [NVMLError("Unknown Error"), NVMLLibraryMismatchError("versions"), AttributeError("x")]
)
def test_one_refusal_leaves_the_rest(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_now = read_state(healthy() | {"PowerUsage": error}, monkeypatch)
    assert gpu_now.power_watts is None
    assert gpu_now.refused == {"power_watts": f"NVML refuses PowerUsage: {error}"}
    assert gpu_now.sm_clock_mhz == 1980


def test_older_drivers_are_asked_in_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = healthy()
    del answers["TemperatureV"], answers["CurrentClocksEventReasons"]
    answers |= {"Temperature": 55, "CurrentClocksThrottleReasons": 0x24}
    answers["ComputeRunningProcesses_v2"] = answers.pop("ComputeRunningProcesses")
    gpu_now = read_state(answers, monkeypatch)
    assert gpu_now.temperature_celsius == 55
    assert gpu_now.throttle_reasons == ["power cap", "software thermal slowdown"]
    assert gpu_now.other_processes == 0
    assert gpu_now.refused == {}


def test_bits_that_nobody_knows_yet_are_kept() -> None:
    assert named_reasons(0) == []
    assert named_reasons(0x1 | 0x8000) == ["idle", "reason 0x8000"]
    assert set(REASONS.values()) >= result_warnings.SLOWING_REASONS


@pytest.mark.parametrize(
    ("listed", "others", "memory"),
    [
        ([(OWN, 2 * GIB)], 0, 0),
        ([(OWN, None)], 0, 0),
        ([(OWN, 2 * GIB), (1, GIB), (2, 3 * GIB)], 2, 4 * GIB),
        ([(OWN, 2 * GIB), (1, None)], 1, None),
        # A container with its own process ids: one of them is this process.
        ([(OWN + 1, 2 * GIB)], 0, 0),
        ([(OWN + 1, 2 * GIB), (OWN + 2, GIB)], 1, None),
        # A driver that hides all processes does not report others either.
        ([], None, None),
    ],
)
def test_others_on_the_gpu_are_counted_as_far_as_they_are_shown(
    listed: list[tuple[int, int | None]],
    others: int | None,
    memory: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu_now = read_state(healthy() | {"ComputeRunningProcesses": processes(*listed)}, monkeypatch)
    assert (gpu_now.other_processes, gpu_now.others_memory_bytes) == (others, memory)
    assert ("other_processes" in gpu_now.refused) is (others is None)
    assert ("others_memory_bytes" in gpu_now.refused) is (memory is None)


def test_how_long_the_clocks_were_held_down_is_what_came_to_it_in_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = violations(power=5 * 10**9, heat=10**9), violations(8 * 10**9, 10**9)
    # One answer for each policy, in order, before and after.
    answers = [moment[policy,] for moment in (before, after) for policy in (0, 1, 3)]
    [gpu] = gpus(healthy() | {"ViolationStatus": answers}, monkeypatch)
    monitor = DeviceMonitor([gpu], "NVML")
    monitor.start()
    [watch] = monitor.stop().gpus
    assert watch.throttled_seconds == {"power": 3.0, "heat": 0.0, "board limit": 0.0}


def test_violation_times_that_run_backwards_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [SimpleNamespace(violationTime=time) for time in (9, 9, 9, 9, 8, 9)]
    [gpu] = gpus(healthy() | {"ViolationStatus": answers}, monkeypatch)
    monitor = DeviceMonitor([gpu], "NVML")
    monitor.start()
    [watch] = monitor.stop().gpus
    assert watch.throttled_seconds is None
    assert watch.source == "NVML's violation times ran backwards"


@pytest.mark.gpu
def test_a_real_gpu_tells_its_state_or_says_why_not() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.ones(1, device="cuda")
    try:
        [gpu] = nvml.open_gpus([str(torch.cuda.get_device_properties(0).uuid)])
    except NotReported as reason:
        pytest.skip(str(reason))
    monitor = DeviceMonitor([gpu], "NVML")
    monitor.start()
    [watch] = monitor.stop().gpus
    for gpu_then in (watch.before, watch.after):
        values = gpu_then.model_dump(exclude={"refused"})
        assert {name for name, value in values.items() if value is None} == gpu_then.refused.keys()


# The processor


@pytest.fixture
def cpus(tmp_path: Path) -> Path:
    """Two usable cores of one package, and a core that this process may not use."""
    for core in (0, 1, 2):
        (tmp_path / f"cpu{core}" / "thermal_throttle").mkdir(parents=True)
        count(tmp_path, core, core_events=3, package_events=7)
    return tmp_path


def count(cpus: Path, core: int, core_events: int, package_events: int) -> None:
    folder = cpus / f"cpu{core}" / "thermal_throttle"
    (folder / "core_throttle_count").write_text(f"{core_events}\n")
    (folder / "package_throttle_count").write_text(f"{package_events}\n")
    (folder / "core_throttle_max_time_ms").write_text("12\n")


def test_a_processor_slowed_down_for_its_heat_is_counted(cpus: Path) -> None:
    monitor = DeviceMonitor([], "no GPU trained", cpus)
    monitor.start()
    count(cpus, 0, core_events=4, package_events=9)
    count(cpus, 1, core_events=3, package_events=9)
    count(cpus, 2, core_events=50, package_events=9)  # a core of other processes
    monitored = monitor.stop()
    assert monitored.cpu_throttle_events == 2
    assert monitored.cpu_throttle_source == "Linux's thermal_throttle"
    monitor.start()
    assert monitor.stop().cpu_throttle_events == 0


def test_a_core_that_was_switched_off_is_left_out(cpus: Path) -> None:
    monitor = DeviceMonitor([], "no GPU trained", cpus)
    monitor.start()
    count(cpus, 1, core_events=4, package_events=7)
    (cpus / "cpu0" / "thermal_throttle" / "core_throttle_count").unlink()
    (cpus / "cpu0" / "thermal_throttle" / "package_throttle_count").write_text("?")
    assert monitor.stop().cpu_throttle_events == 1


def test_no_counters_are_null_and_say_why(tmp_path: Path) -> None:
    monitor = DeviceMonitor([], "no GPU trained", tmp_path)
    monitor.start()
    monitored = monitor.stop()
    assert monitored.cpu_throttle_events is None
    assert "Intel" in monitored.cpu_throttle_source
    assert (monitored.gpus, monitored.gpus_source) == ([], "no GPU trained")


@pytest.mark.parametrize("answer", [None, SimpleNamespace(current=0.0), FileNotFoundError()])
def test_a_clock_that_the_system_does_not_tell_is_null(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cpu_freq() -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(psutil, "cpu_freq", cpu_freq)
    monitor = DeviceMonitor([], "no GPU trained")
    monitor.start()
    monitored = monitor.stop()
    assert (monitored.cpu_mhz_before, monitored.cpu_mhz_after) == (None, None)


# Warnings


@pytest.mark.parametrize(
    ("around", "throttled", "shared"),
    [
        (monitoring(), False, False),
        (monitoring(throttle_reasons=["idle", "application clocks", "reason 0x800"]), False, False),
        (monitoring(throttle_reasons=["software thermal slowdown"]), True, False),
        (monitoring(throttle_reasons=["power cap"]), True, False),
        (monitoring(throttle_reasons=None), False, False),
        (monitoring(throttled_seconds={"power": 0.43, "heat": 0.0}), False, False),
        (monitoring(throttled_seconds={"power": 0.44, "heat": 0.0}), True, False),  # of 43.2 s
        (monitoring(cpu_throttle_events=1), True, False),
        (monitoring(cpu_throttle_events=None), False, False),
        (monitoring(other_processes=1), False, True),
        (monitoring(other_processes=None), False, False),
        (None, False, False),
    ],
)
def test_throttling_and_others_are_warned_of(
    around: dict[str, Any] | None, throttled: bool, shared: bool
) -> None:
    warnings = run_warnings(make_record(monitoring=around))
    assert (ResultWarning.THROTTLED in warnings) is throttled
    assert (ResultWarning.SHARED_GPU in warnings) is shared


def test_what_was_so_before_the_run_counts_as_well() -> None:
    around = monitoring()
    around["gpus"][0]["before"] = state(other_processes=2, throttle_reasons=["hardware slowdown"])
    warnings = run_warnings(make_record(monitoring=around))
    assert {ResultWarning.THROTTLED, ResultWarning.SHARED_GPU} <= set(warnings)
