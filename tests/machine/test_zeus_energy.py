"""Energy by Zeus's libraries; stand-ins have the interface that their documents describe."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from bench.machine import energy, meter
from bench.machine.energy import EnergyMeter
from bench.machine.system import NotReported
from bench.machine.zeus_energy import amd_gpu_counters, apple_counters
from bench.records.schema import Energy

M1 = {"cpu_total_mj": 4000, "gpu_mj": 2500, "gpu_sram_mj": None, "dram_mj": 500, "ane_mj": 0}


def install(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    for key, value in contents.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an Apple chip's counters show, and how often a monitor of it was made."""
    values: dict[str, Any] = {"monitors": 0} | M1

    class AppleEnergyMonitor:
        def __init__(self) -> None:
            values["monitors"] += 1

        def get_cumulative_energy(self) -> SimpleNamespace:
            return SimpleNamespace(**values, efficiency_cores_mj=[1, 2])

    install(monkeypatch, "zeus_apple_silicon", AppleEnergyMonitor=AppleEnergyMonitor)
    return values


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_macs_energy_is_that_of_the_whole_chip(
    device: str, chip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(energy, "SHORTEST_SECONDS", 0)
    measured = EnergyMeter(*meter.energy_counters(device, [], "", runs_at_a_time=1))
    measured.start()
    chip |= {"cpu_total_mj": 14_000, "gpu_mj": 52_500, "dram_mj": 1500}
    used = measured.stop()
    assert used.device.joules == 61.0
    assert used.device.source == "Apple's cpu_total, Apple's gpu, Apple's dram, Apple's ane"
    assert used.host is None
    assert chip["monitors"] == 1


def fail(*_: object) -> None:
    raise RuntimeError("no driver")


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"AppleEnergyMonitor": fail}, "zeus_apple_silicon cannot read them: RuntimeError"),
        ({}, "zeus_apple_silicon cannot read them: AttributeError"),
        (
            {"AppleEnergyMonitor": lambda: SimpleNamespace(get_cumulative_energy=SimpleNamespace)},
            "reads no part of this chip",
        ),
    ],
    ids=["no driver", "another version", "no parts"],
)
def test_a_mac_without_counters_says_why(
    contents: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "zeus_apple_silicon", **contents)
    with pytest.raises(NotReported, match=reason):
        apple_counters()()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zeus_apple_silicon", "zeus", "zeus.device"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotReported, match=r"^needs the package zeus-apple-silicon$"):
        apple_counters()()
    with pytest.raises(NotReported, match=r"^needs the package zeus$"):
        amd_gpu_counters(1)()


def test_amds_gpus_are_counted_each(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = [1000, 5000, 900_000]
    gpus = SimpleNamespace(get_total_energy_consumption=counters.__getitem__)
    install(monkeypatch, "zeus")
    install(monkeypatch, "zeus.device", get_gpus=lambda: gpus)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(energy, "SHORTEST_SECONDS", 0)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    found = meter.find_gpus("cuda")
    assert found == ([], "NVML is for NVIDIA's GPUs")
    measured = EnergyMeter(*meter.energy_counters("cuda", *found, runs_at_a_time=1))
    measured.start()
    counters[:] = [3000, 6500, 1_000_000]
    used: Energy = measured.stop()
    assert used.device.joules == 3.5
    assert "GPU 0" in used.device.source
    assert "GPU 1" in used.device.source
    assert "GPU 2" not in used.device.source


def test_an_amd_gpu_without_counters_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "zeus")
    install(monkeypatch, "zeus.device", get_gpus=fail)
    with pytest.raises(NotReported, match="cannot read them: RuntimeError"):
        amd_gpu_counters(1)()
