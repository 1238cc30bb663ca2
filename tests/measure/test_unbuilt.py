"""What a run computes with, decided from the machine and its environment, and what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.measure import plan
from bench.measure.plan import ExecutionPlan, unbuilt_reason
from bench.measure.request import ComputeRequest
from mnist_cnn.kernels import build
from mnist_cnn.kernels.native import library
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
    assert plan.choose_precision(TORCH, FAST, "cpu") == "bf16"
    assert plan.choose_precision(TORCH, REFERENCE, "cpu") == "fp32"


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
    assert plan.choose_precision(TORCH, FAST, "cpu") == precision
    asked = replace(TORCH, precision="bf16")
    assert plan.choose_precision(asked, FAST, "cpu") == "bf16", "whoever asks for it gets it"


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_auto_is_fp32_where_torchs_loops_are_limited(
    capability: str, fast_bf16: pytest.MonkeyPatch
) -> None:
    fast_bf16.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert plan.choose_precision(TORCH, FAST, "cpu") == "fp32"


LIMITED = """
import torch
torch.cpu._is_avx512_bf16_supported = lambda: True
from bench.measure import plan
from bench.measure.request import ComputeRequest
from mnist_cnn.recipe import FAST
print(plan.choose_precision(ComputeRequest(kernels="torch"), FAST, "cpu"))
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

PLAN = ExecutionPlan(
    recipe=FAST,
    device="cpu",
    precision="bf16",
    kernels="torch",
    threads=1,
    processes=1,
    capture=None,
)


@pytest.fixture
def unbuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library's file, which does not exist, on a platform that could have it."""
    file = tmp_path / "library"
    monkeypatch.setattr(library, "LIBRARY", file)
    monkeypatch.setattr(build, "is_for_this_platform", lambda: True)
    return file


def test_what_was_not_built_is_named_with_its_remedy(unbuilt: Path) -> None:
    # Without compiled code the precision is fp32 where the CPU does not multiply bf16 fast.
    assert unbuilt_reason(replace(PLAN, precision="fp32"), AUTO) == unbuilt_reason(PLAN, AUTO)
    reason = unbuilt_reason(PLAN, AUTO)
    assert reason is not None
    assert reason.startswith("it was not built: run ./scripts/setup")


@pytest.mark.parametrize(
    ("plan", "asked"),
    [
        (PLAN, TORCH),
        (replace(PLAN, kernels="avx512"), AUTO),
        (replace(PLAN, precision="fp32"), replace(AUTO, precision="fp32")),
        (replace(PLAN, precision="fp32", recipe=REFERENCE), AUTO),
        (replace(PLAN, device="cuda"), AUTO),
    ],
    ids=["the user chose", "compiled code computes", "unfit precision", "unfit recipe", "unfit device"],
)
@pytest.mark.usefixtures("unbuilt")
def test_nothing_is_said_where_compiled_code_would_not_compute(
    plan: ExecutionPlan, asked: ComputeRequest
) -> None:
    assert unbuilt_reason(plan, asked) is None


def test_a_processor_without_the_instructions_is_no_fault(unbuilt: Path) -> None:
    unbuilt.touch()
    assert unbuilt_reason(PLAN, AUTO) is None


def test_a_platform_without_compiled_code_is_no_fault(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "is_for_this_platform", lambda: False)
    assert unbuilt_reason(PLAN, AUTO) is None
    assert library.unavailable_reason() == "there is none for this platform"


def test_auto_is_bf16_where_compiled_code_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stores bf16 on every CPU, also where the CPU does not multiply it fast."""
    monkeypatch.setattr(plan, "multiplies_bf16_fast", lambda device: False)
    monkeypatch.setattr("mnist_cnn.kernels.native.unavailable_reason", lambda kernels: None)
    assert plan.choose_precision(AUTO, FAST, "cpu") == "bf16"
    assert plan.choose_precision(replace(AUTO, kernels="avx2"), FAST, "cpu") == "bf16"
    assert plan.choose_precision(AUTO, REFERENCE, "cpu") == "fp32"
    assert plan.choose_precision(TORCH, FAST, "cpu") == "fp32"
