"""The precision of a run, decided from the machine and its environment."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from bench.measure import precision_choice
from bench.measure.precision_choice import choose_precision
from bench.measure.request import ComputeRequest
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import FAST, REFERENCE

AUTO, TORCH = ComputeRequest(), ComputeRequest(kernels="torch")


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU with AVX512-BF16, without limits in the environment."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("fast_bf16")
def test_auto_is_bf16_where_the_cpu_multiplies_it_fast_and_the_recipe_allows_it() -> None:
    assert choose_precision(TORCH, FAST, "cpu") == "bf16"
    assert choose_precision(TORCH, REFERENCE, "cpu") == "fp32"


@pytest.mark.parametrize(
    ("environment", "precision"),
    [
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "fp32"),
        ({"ONEDNN_MAX_CPU_ISA": "avx2_vnni_2"}, "fp32"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "fp32"),
        ({"ONEDNN_MAX_CPU_ISA": "Avx512_Core_Vnni"}, "fp32"),
        ({"DNNL_MAX_CPU_ISA": "SSE41"}, "fp32"),
        ({"ONEDNN_MAX_CPU_ISA": "", "DNNL_MAX_CPU_ISA": "AVX"}, "fp32"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "DNNL_MAX_CPU_ISA": "AVX2"}, "bf16"),
        ({"ONEDNN_MAX_CPU_ISA": "avx10_1_512_amx"}, "bf16"),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, "bf16"),
        ({"ONEDNN_MAX_CPU_ISA": "no such set"}, "bf16"),
    ],
)
def test_auto_is_fp32_where_onednn_is_limited(
    environment: dict[str, str], precision: str, fast_bf16: pytest.MonkeyPatch
) -> None:
    """oneDNN reads the limit so: tested with ONEDNN_VERBOSE=1."""
    for name, value in environment.items():
        fast_bf16.setenv(name, value)
    assert choose_precision(TORCH, FAST, "cpu") == precision
    asked = replace(TORCH, precision="bf16")
    assert choose_precision(asked, FAST, "cpu") == "bf16", "whoever asks for it gets it"


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_auto_is_fp32_where_torchs_loops_are_limited(
    capability: str, fast_bf16: pytest.MonkeyPatch
) -> None:
    fast_bf16.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert choose_precision(TORCH, FAST, "cpu") == "fp32"


LIMITED = """
import torch
torch.cpu._is_avx512_bf16_supported = lambda: True
from bench.measure.precision_choice import choose_precision
from bench.measure.request import ComputeRequest
from mnist_cnn.recipe import FAST
print(choose_precision(ComputeRequest(kernels="torch"), FAST, "cpu"))
"""


@pytest.mark.slow
def test_torch_reads_its_limit_from_the_environment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "fp32\n"


def test_auto_is_bf16_where_compiled_code_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stores bf16 on every CPU, also where the CPU does not multiply it fast."""
    monkeypatch.setattr(precision_choice, "multiplies_bf16_fast", lambda device: False)
    monkeypatch.setattr("mnist_cnn.kernels.native.unavailable_reason", lambda kernels: None)
    assert choose_precision(AUTO, FAST, "cpu") == "bf16"
    assert choose_precision(replace(AUTO, kernels="avx2"), FAST, "cpu") == "bf16"
    assert choose_precision(AUTO, REFERENCE, "cpu") == "fp32"
    assert choose_precision(TORCH, FAST, "cpu") == "fp32"


@pytest.mark.parametrize(("converts", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_on_an_xpu_that_has_it(
    converts: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(*, including_emulation: bool) -> bool:
        return including_emulation or converts

    monkeypatch.setattr(torch.xpu, "is_bf16_supported", is_supported)
    assert choose_precision(TORCH, FAST, "xpu") == precision
    assert choose_precision(replace(TORCH, precision="bf16"), FAST, "xpu") == "bf16"


def test_fp16_on_an_xpu_needs_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's scaler of losses computes in it, and would fail at the first step."""
    asked = replace(TORCH, precision="fp16")
    monkeypatch.setattr(torch.xpu, "get_device_capability", lambda: {"has_fp64": True})
    assert choose_precision(asked, FAST, "xpu") == "fp16"
    monkeypatch.setattr(torch.xpu, "get_device_capability", lambda: {"has_fp64": False})
    with pytest.raises(UsageError, match=r"fp16 needs float64.*use --precision bf16 or fp32"):
        choose_precision(asked, FAST, "xpu")
