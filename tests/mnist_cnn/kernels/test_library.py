"""Which compiled code is chosen, and what is said where there is none."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.measure import kernel_choice
from bench.measure.kernel_choice import choose_kernels
from bench.measure.request import ComputeRequest
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import native
from mnist_cnn.recipe import FAST, REFERENCE, Kernels
from tests.mnist_cnn.kernels.test_native import ROOT, built_here

PROBE = """
import ctypes, mmap, platform
from mnist_cnn.kernels.native.library import library

arm = platform.machine() in ("aarch64", "arm64")
illegal, leave = (b"\\0" * 4, b"\\xc0\\x03\\x5f\\xd6") if arm else (b"\\x0f\\x0b", b"\\xc3")
for code in (illegal + leave, leave):
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    print(library().executes(ctypes.c_void_p(address)), end=" " if code[0] == illegal[0] else "\\n")
"""


def test_auto_is_compiled_code_where_it_can_be_used() -> None:
    usable = (kind for kind in native.FAST_KINDS if not native.unavailable_reason(kind))
    first = next(usable, None)
    possible: set[Kernels] = {"torch"} if first is None else {first}
    if first in native.FLOAT32_OF_PAIRS:  # which are not fast everywhere
        possible.add(native.FLOAT32_OF_PAIRS[first])
    assert choose_kernels("auto", "cpu", "bf16", FAST) in possible
    assert choose_kernels("auto", "cpu", "fp32", FAST) == "torch"
    assert choose_kernels("auto", "cuda", "bf16", FAST) == "torch"
    assert choose_kernels("torch", "cpu", "bf16", FAST) == "torch"


@pytest.mark.parametrize(
    ("times_as_fast", "chosen"), [(0.5, "avx512"), (1.0, "avx512"), (1.84, "avx512-bf16")]
)
def test_pairs_of_bfloat16_are_multiplied_where_that_is_faster(
    times_as_fast: float, chosen: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Intel's and AMD's CPUs; on a clock that knows how long each set takes."""
    now = 0.0

    def multiply(kernels: Kernels, rounds: int) -> float:
        nonlocal now
        now += rounds / (times_as_fast if kernels == "avx512-bf16" else 1.0)
        return rounds

    monkeypatch.setattr(native, "multiply", multiply)
    monkeypatch.setattr(kernel_choice, "perf_counter", lambda: now)
    cases: list[tuple[set[Kernels], Kernels]] = [
        ({"avx512-bf16", "avx512", "avx2"}, chosen),
        ({"avx512-bf16"}, "avx512-bf16"),
        ({"amx", "avx512-bf16", "avx512"}, "amx"),
        ({"avx2"}, "avx2"),
    ]
    for usable, best in cases:
        reasons = {kind: None if kind in usable else "not here" for kind in native.KINDS}
        monkeypatch.setattr(native, "unavailable_reason", reasons.get)
        kernel_choice.faster_products.cache_clear()
        assert choose_kernels("auto", "cpu", "bf16", FAST) == best
    kernel_choice.faster_products.cache_clear()


def test_compiled_code_that_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="it computes in bf16, not fp32"):
        choose_kernels("avx512", "cpu", "fp32", FAST)
    with pytest.raises(UsageError, match="it is for CPUs"):
        choose_kernels("amx", "mps", "bf16", FAST)
    with pytest.raises(UsageError, match=r"unknown kernels 'avx521' \(did you mean 'avx512'\?\)"):
        ComputeRequest(kernels="avx521")


@built_here
def test_another_architectures_instruction_set_is_refused_with_what_there_is() -> None:
    foreign: Kernels = "avx2" if platform.machine() in ("aarch64", "arm64") else "neon"
    complaint = rf"--kernels {foreign} cannot be used: this library is for \w+: it has .*scalar;"
    with pytest.raises(UsageError, match=complaint):
        choose_kernels(foreign, "cpu", "bf16", FAST)


@pytest.mark.slow
@built_here
def test_a_set_that_the_processor_claims_but_does_not_execute_is_no_crash() -> None:
    """The probe's first instruction is then an illegal one: here it is, whatever was claimed."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 1\n"


@pytest.mark.slow
@built_here
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="edits an ELF header")
def test_a_library_for_another_machine_is_named_with_the_remedy(copied: Path) -> None:
    library = copied / "mnist_cnn/kernels/native/libnative.so"
    content = bytearray(library.read_bytes())
    x86_64, aarch64 = 62, 183  # e_machine, from byte 18 on
    content[18] = aarch64 if content[18] == x86_64 else x86_64
    library.write_bytes(content)
    assert absence_in(copied).startswith("its library cannot be loaded here (")


@pytest.mark.slow
def test_why_the_library_was_not_built_is_said(copied: Path) -> None:
    folder = copied / "mnist_cnn/kernels/native"
    (folder / "libnative.so").unlink(missing_ok=True)
    (folder / "libnative.txt").write_text("c++ failed: answer.cpp:1: error: no\n")
    assert absence_in(copied).startswith("it was not built (c++ failed: answer.cpp:1: error: no): ")


def test_compiled_code_does_not_share_batch_norm_so_several_processes_use_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each process would normalise its share of the closed division's batch."""
    best = choose_kernels("auto", "cpu", "bf16", FAST)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_kernels("auto", "cpu", "bf16", FAST) == best
    assert choose_kernels("auto", "cpu", "bf16", REFERENCE) == "torch"
    for kind in ("inductor", *native.KINDS):
        with pytest.raises(UsageError, match="only torch's operators take batch norm over the"):
            choose_kernels(kind, "cpu", "bf16", REFERENCE)
    as_large = replace(FAST, norm_batch_size=FAST.batch_size)
    assert choose_kernels("auto", "cpu", "bf16", as_large) == "torch"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The workload alone, where its library may be spoilt."""
    shutil.copytree(ROOT / "mnist_cnn", tmp_path / "mnist_cnn")
    return tmp_path


def absence_in(folder: Path) -> str:
    code = (
        "from mnist_cnn.kernels import native\n"
        "from mnist_cnn.errors import UsageError\n"
        "try: print(native.unavailable_reason())\n"
        "except UsageError as error: print('refused:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_without_the_library_torch_does_the_work(copied: Path) -> None:
    (copied / "mnist_cnn/kernels/native/libnative.so").unlink(missing_ok=True)
    assert absence_in(copied).startswith("it was not built")


@pytest.mark.slow
@built_here
def test_a_library_of_other_source_is_refused(copied: Path) -> None:
    with (copied / "mnist_cnn/kernels/native/grid.hpp").open("a") as source:
        source.write("// edited\n")
    assert "refused: the compiled code is not that of this source" in absence_in(copied)
