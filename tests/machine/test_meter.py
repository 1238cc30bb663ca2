"""The load of the machine and the peak memory: real processes, real memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.machine import cores, load, memory, meter
from bench.machine.load import LoadMeter
from bench.machine.system import NotReported
from tests.commands import PYTHON, launch


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


BURN_IN_CHILD = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_own_seconds_are_this_process_and_its_children() -> None:
    metered = LoadMeter()
    burn(0.1)
    metered.start()
    burn(0.2)
    subprocess.run([sys.executable, "-c", BURN_IN_CHILD], check=True)
    load = metered.stop()
    assert load.own_seconds is not None
    assert 0.48 < load.own_seconds < 3
    assert load.elapsed_seconds > 0.2
    # The kernel's counters tick every hundredth of a second on each core.
    assert load.busy_seconds is not None
    assert load.busy_seconds > load.own_seconds - 0.3


def test_children_that_still_live_count() -> None:
    metered = load.LoadMeter()
    metered.start()
    code = f"{BURN_IN_CHILD}print(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert metered.own_cpu_seconds() > 0.25
        child.communicate("\n")
    assert metered.own_cpu_seconds() > 0.25


def test_several_ranks_seconds_are_handed_in() -> None:
    metered = load.LoadMeter()
    metered.start()
    assert metered.stop(own_seconds=123.0).own_seconds == 123.0


def counters(**seconds: float) -> SimpleNamespace:
    return SimpleNamespace(_asdict=lambda: seconds)


def test_stolen_time_is_busy_and_waiting_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = counters(user=10, system=5, idle=100, iowait=7, steal=1, guest=4, guest_nice=0)
    after = counters(user=14, system=6, idle=150, iowait=9, steal=3, guest=6, guest_nice=0)
    elsewhere = counters(user=0, system=0, idle=0), counters(user=50, system=0, idle=0)
    # This process may not use core 1, so its load does not count.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    readings = iter([[before, elsewhere[0]], [after, elsewhere[1]]])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    metered = load.LoadMeter()
    metered.start()
    # 4 user (2 of them for a guest, counted once), 1 system, 2 stolen.
    assert metered.stop().busy_seconds == 4 + 1 + 2


def test_busy_seconds_are_of_the_same_cores_when_the_affinity_shrinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allowed = iter([{0, 1}, {1}])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: next(allowed), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    boot, later = counters(user=500, system=0, idle=900), counters(user=506, system=0, idle=904)
    readings = iter([[boot, boot], [later, later]])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    metered = load.LoadMeter()
    metered.start()
    measured = metered.stop()
    assert measured.busy_seconds == 6 + 6
    assert (measured.usable_cores_before, measured.usable_cores_after) == (2, 1)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([counters(user=9, system=0, idle=10)] * 2, id="they ran backwards"),
        pytest.param([counters(user=10, system=0, idle=11)], id="a core was switched off"),
    ],
)
def test_counters_that_make_no_sense_say_nothing(
    monkeypatch: pytest.MonkeyPatch, after: list[SimpleNamespace]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    readings = iter([[counters(user=10, system=0, idle=9)] * 2, after])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    metered = load.LoadMeter()
    metered.start()
    assert metered.stop().busy_seconds is None


def cgroup(root: Path, group: str, files: dict[str, str]) -> None:
    (root / group).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / group / name).write_text(text)


def test_a_quota_that_is_set_meanwhile_is_seen_and_so_is_what_it_stopped(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    cgroup(tmp_path, "outer", {"cpu.max": "max 100000", "cpu.stat": "throttled_usec 1000000"})
    cgroup(tmp_path, "outer/inner", {"cpu.max": "max 100000", "cpu.stat": "throttled_usec 7"})
    metered = load.LoadMeter(own, tmp_path)
    metered.start()
    cgroup(tmp_path, "outer", {"cpu.max": "4000 100000", "cpu.stat": "throttled_usec 23600000"})
    measured = metered.stop()
    assert (measured.quota_cores_before, measured.quota_cores_after) == (None, 0.04)
    assert measured.throttled_seconds == pytest.approx(22.6)


def test_version_1_counts_in_nanoseconds(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("3:cpu,cpuacct:/a\n")
    cgroup(tmp_path, "cpu/a", {"cpu.stat": "nr_throttled 1\nthrottled_time 500000000\n"})
    metered = load.LoadMeter(own, tmp_path)
    metered.start()
    cgroup(tmp_path, "cpu/a", {"cpu.stat": "nr_throttled 3\nthrottled_time 2000000000\n"})
    assert metered.stop().throttled_seconds == pytest.approx(1.5)


def test_without_control_groups_throttling_is_unknown(tmp_path: Path) -> None:
    metered = load.LoadMeter(tmp_path / "own", tmp_path)
    metered.start()
    measured = metered.stop()
    assert (measured.quota_cores_before, measured.throttled_seconds) == (None, None)


def test_counters_that_stand_still_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [counters(user=0, system=0, idle=0)])
    metered = load.LoadMeter()
    metered.start()
    assert metered.stop().busy_seconds is None


def test_no_load_average_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    def unobtainable() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unobtainable)
    metered = load.LoadMeter()
    metered.start()
    assert metered.stop().load_average_before is None


# Memory


PEAK_PROGRAM = """
import json
from bench.machine import memory

since_reset = memory.reset_peak_memory("cpu")
peaks = [memory.peak_memory("cpu", since_reset=since_reset)]
hold = b"x" * 192 * 2**20  # so large that malloc returns it to the system
del hold
peaks.append(memory.peak_memory("cpu", since_reset=since_reset))
memory.reset_peak_memory("cpu")
peaks.append(memory.peak_memory("cpu", since_reset=since_reset))
print(json.dumps([since_reset, [(peak.bytes, peak.source) for peak in peaks]]))
"""


@pytest.mark.slow
def test_a_peak_is_kept_after_its_memory_is_gone() -> None:
    """In a process of its own: that of the tests holds so much that some may be freed meanwhile."""
    done = launch([PYTHON, "-c", PEAK_PROGRAM])
    assert done.returncode == 0, done.stderr
    since_reset, ((before, source), (peak, _), (again, _)) = json.loads(done.stdout)
    assert "this process" in source
    if since_reset:
        assert "since the run began" in source
        assert peak - before > 64 * 2**20
        assert again < peak


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("linux", 1024)])
def test_without_proc_the_units_are_the_platforms(
    monkeypatch: pytest.MonkeyPatch, system: str, unit: int
) -> None:
    monkeypatch.setattr(memory, "read_proc", lambda name: "")
    monkeypatch.setattr(sys, "platform", system)
    usage = SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    peak = memory.peak_memory("cpu")
    assert peak.bytes == 7 * unit
    assert peak.source.startswith("ru_maxrss since the process began")


def test_where_nothing_counts_it_is_null_and_says_why() -> None:
    assert memory.reset_peak_memory("mps") is False
    peak = memory.peak_memory("mps")
    assert peak.bytes is None
    assert "mps" in peak.source


def test_a_peak_of_nothing_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read_proc", lambda name: "VmHWM:\t0 kB\n")
    assert memory.peak_memory("cpu").bytes is None


def test_the_meter_gives_all() -> None:
    metered = meter.Meter("cpu")
    metered.start()
    load, memory, energy, monitoring = metered.stop(metered.own_cpu_seconds())
    assert load.own_seconds is not None
    assert memory.bytes is not None
    # Less than two seconds have passed, so no counter gives an energy.
    assert energy.device.joules is None
    assert energy.device.source
    assert energy.host is None
    assert (monitoring.gpus, monitoring.gpus_source) == ([], "no GPU trained")


def test_on_several_machines_nobody_counts_the_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    metered = meter.Meter("cpu")
    metered.start()
    *_, energy, _ = metered.stop()
    assert energy.device.source.startswith("other machines trained too")


def test_energy_of_several_runs_at_a_time_is_nobodys() -> None:
    metered = meter.Meter("cpu", runs_at_a_time=2)
    metered.start()
    *_, energy, _ = metered.stop()
    assert energy.device.source.startswith("2 runs were made at a time")


@pytest.mark.parametrize(
    ("device", "platform", "reason"),
    [
        ("mps", "darwin", "needs the package zeus-apple-silicon"),
        ("xpu", "linux", "no counters of xpu devices"),
    ],
)
def test_devices_without_known_counters_say_so(
    device: str, platform: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    counters, _ = meter.energy_counters(device, *meter.find_gpus(device), runs_at_a_time=1)
    with pytest.raises(NotReported, match=reason):
        counters()


@pytest.mark.parametrize("text", ["", "nonsense", "0", "1:cpu", "²", "0::/\0", "9" * 5000, "-1 ²"])
def test_what_is_no_control_group_limits_nothing(text: str, tmp_path: Path) -> None:
    for name in ("membership", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
        (tmp_path / name).write_text(text)
    (tmp_path / "cpu.stat").write_text(f"throttled_usec {text}\n")
    (tmp_path / "root").write_text("0::/\n")
    for membership in ("membership", "root"):
        assert cores.cgroup_quota_cores(tmp_path / membership, tmp_path) is None
        cores.cgroup_throttled_seconds(tmp_path / membership, tmp_path)
