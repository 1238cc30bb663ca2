"""What is said where compiled code was not built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.measure.plan import ExecutionPlan, unbuilt_reason
from bench.measure.request import ComputeRequest
from mnist_cnn.kernels import build
from mnist_cnn.kernels.native import library
from mnist_cnn.recipe import FAST, REFERENCE

AUTO, TORCH = ComputeRequest(), ComputeRequest(kernels="torch")
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
    monkeypatch.setattr(build, "_REASON", tmp_path / "reason")
    return file


def test_what_was_not_built_is_named_with_its_remedy(unbuilt: Path) -> None:
    # Without compiled code the precision is fp32 where the CPU does not multiply bf16 fast.
    assert unbuilt_reason(replace(PLAN, precision="fp32"), AUTO) == unbuilt_reason(PLAN, AUTO)
    reason = unbuilt_reason(PLAN, AUTO)
    assert reason is not None
    assert reason.startswith("it was not built: run ./scripts/setup")
    (unbuilt.parent / "reason").write_text("no compiler:\nc++ failed\n")
    reason = unbuilt_reason(PLAN, AUTO)
    assert reason is not None
    assert reason.startswith("it was not built (no compiler: c++ failed): run ./scripts/setup")


@pytest.mark.parametrize(
    ("plan", "asked"),
    [
        (PLAN, TORCH),
        (replace(PLAN, kernels="avx512"), AUTO),
        (replace(PLAN, precision="fp32"), replace(AUTO, precision="fp32")),
        (replace(PLAN, precision="fp32", recipe=REFERENCE), AUTO),
        (replace(PLAN, device="cuda"), AUTO),
    ],
    ids=[
        "the user chose",
        "compiled code computes",
        "unfit precision",
        "unfit recipe",
        "unfit device",
    ],
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
