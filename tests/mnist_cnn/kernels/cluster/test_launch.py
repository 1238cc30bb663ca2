"""The CUDA kernels compile for GPUs that are not here, and fit them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from bench.measure.kernel_choice import choose_kernels
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import cluster
from mnist_cnn.kernels.cluster.launch import KERNELS, THREADS, compile_with_report
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE, Precision, Recipe

REGISTERS = 64 << 10
"""Of a multiprocessor, 32 bits each."""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("cuda") is None, reason="the package cuda-bindings is not installed")
@pytest.mark.parametrize(
    "architecture", ["sm_90", pytest.param("sm_100", marks=pytest.mark.thorough)]
)
def test_they_compile_without_spills_and_fit_the_registers(architecture: str) -> None:
    """That their shared memory fits is asserted where they are compiled."""
    code, report = compile_with_report(architecture)
    assert code.startswith(b"\x7fELF")
    print(report)
    for kernel in KERNELS:
        lines = report[report.index(f"'{kernel}'") :].splitlines()[1:4]
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in lines[1]
        registers = re.search(r"Used (\d+) registers", lines[2])
        assert registers is not None
        assert int(registers[1]) * THREADS <= REGISTERS


def test_an_architecture_that_is_none_is_refused_with_the_compilers_word() -> None:
    pytest.importorskip("cuda.bindings")
    with pytest.raises(RuntimeError, match="does not compile for sm_1"):
        compile_with_report("sm_1")


def test_what_they_cannot_do_has_a_reason() -> None:
    def reason(recipe: Recipe) -> str:
        return str(cluster.unsupported_reason(recipe))

    assert cluster.unsupported_reason(FAST) is None
    assert "groups of at most 16 images, not 256" in reason(FAST_GPU)
    assert "groups" in reason(REFERENCE)
    with_groups = {"norm_batch_size": 16}
    assert "SGD" in reason(Recipe(**REFERENCE.values() | with_groups))
    assert "dropout" in reason(Recipe(**FAST.values() | {"dropout": 0.1}))
    assert "bilinear" in reason(Recipe(**FAST.values() | {"brightness": 0.2}))


HOPPER = SimpleNamespace(major=9, minor=0, shared_memory_per_block_optin=227 << 10)


@pytest.mark.parametrize(
    ("properties", "precision", "reason"),
    [
        (HOPPER, "fp32", "computes in bf16"),
        (
            SimpleNamespace(major=12, minor=0, shared_memory_per_block_optin=99 << 10),
            "bf16",
            "compute capability 12.0 with 99 KiB",
        ),
        (
            SimpleNamespace(major=8, minor=0, shared_memory_per_block_optin=163 << 10),
            "bf16",
            "compute capability 8.0",
        ),
    ],
    ids=["fp32", "RTX 50", "A100"],
)
def test_a_gpu_that_cannot_run_them_is_told_why(
    properties: SimpleNamespace,
    precision: Precision,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: properties)
    with pytest.raises(UsageError, match=f"--kernels cluster cannot be used: .*{reason}"):
        choose_kernels("cluster", "cuda", precision, FAST)


def test_they_are_chosen_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: HOPPER)
    assert choose_kernels("cluster", "cuda", "bf16", FAST) == "cluster"
    assert choose_kernels("auto", "cuda", "bf16", FAST) != "cluster"
    with pytest.raises(UsageError, match="CUDA devices"):
        choose_kernels("cluster", "cpu", "bf16", FAST)
