"""Which GPU it is: what CUDA and, with a stand-in, NVML say."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bench.machine.gpu_identity import apple_gpu_cores, describe_gpu, identify_gpu
from bench.records.schema import Gpu
from tests.stand_ins.nvml_double import UUID, NvmlDouble, NVMLError

H100: dict[str, Any] = {
    "MigMode": (0, 0),
    "EnforcedPowerLimit": 699_600,
    "MaxClockInfo": {(1,): 1980, (2,): 2619},
}
BARE = Gpu(
    compute_capability="9.0",
    multiprocessors=132,
    power_limit_watts=None,
    max_memory_clock_mhz=None,
    max_sm_clock_mhz=None,
)


def identify(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Gpu:
    monkeypatch.setitem(sys.modules, "pynvml", NvmlDouble(answers))
    return identify_gpu("9.0", 132, UUID)


def test_a_gpu_has_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"power_limit_watts": 700.0, "max_memory_clock_mhz": 2619, "max_sm_clock_mhz": 1980}
    assert identify(H100, monkeypatch) == BARE.model_copy(update=known)


@pytest.mark.parametrize("missing", ["EnforcedPowerLimit", "MaxClockInfo"])
def test_one_refusal_leaves_the_rest(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = identify(H100 | {missing: NVMLError("Not Supported")}, monkeypatch)
    unknown = (gpu.power_limit_watts is None, gpu.max_memory_clock_mhz is None)
    assert unknown == (missing == "EnforcedPowerLimit", missing == "MaxClockInfo")


def test_a_part_of_a_gpu_has_no_limits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identify(H100 | {"MigMode": (1, 1)}, monkeypatch) == BARE


def test_without_nvml_cudas_facts_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert identify_gpu("9.0", 132, UUID) == BARE


def test_a_cpu_is_no_gpu() -> None:
    assert describe_gpu("cpu") is None


def test_apples_gpus_are_told_apart_by_their_cores() -> None:
    text = '  | {\n  |   "IOClass" = "AGXAcceleratorG14G"\n  |   "gpu-core-count" = 10\n  | }\n'
    assert apple_gpu_cores(text) == 10
    assert apple_gpu_cores("") is None
