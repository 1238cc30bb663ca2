"""Compiled code for processors that this machine is not: emulated, and as object files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hatch_build
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.model import GroupedNetwork, MnistCnn
from tests.mnist_cnn.kernels.test_native import gradients, images, network, relative_error
from tests.shared import made_once

NATIVE = Path(hatch_build.__file__).parent / hatch_build.NATIVE
PROGRAM = Path(__file__).with_name("step_program.cpp")
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
IMAGES, GROUP = 8, 4
ABSENT = 3
"""Exit status of the program where the processor lacks the instruction set."""

pytestmark = pytest.mark.slow
emulated = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user-static)",
)


def compile_all(
    compiler: list[str], architecture: str, folder: Path, *flags: str
) -> dict[str, Path]:
    """The object files of an architecture, by the names of their sources."""

    def compile_file(name: str, own: Iterable[str]) -> Path:
        to = (folder / name).with_suffix(".o")
        command = [*compiler, *hatch_build.FLAGS, *flags, *own, '-DSOURCES=""', "-c", name]
        subprocess.run([*command, "-o", to], cwd=NATIVE, check=True)
        return to

    sources = hatch_build.sources(NATIVE, architecture)
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(sources, threads.map(compile_file, sources, sources.values()), strict=True))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`step_program.cpp` for 64-bit Arm, compiled without warnings."""

    def make(folder: Path) -> None:
        # -O2 compiles in two thirds of the time; another compiler than this one makes the wheels.
        flags = ("-O2", "-Wall", "-Wextra", "-Werror")
        objects = compile_all([COMPILER], "aarch64", folder, *flags)
        to = str(folder / "step_program")
        linking = ["-std=c++20", "-O2", "-static", "-pthread", "-o", to]
        files = [str(PROGRAM), *map(str, objects.values())]
        subprocess.run([COMPILER, *linking, *files], check=True)

    return made_once(tmp_path_factory, "arm", make) / "step_program"


class Emulated:
    """What the program computes on an emulated processor."""

    def __init__(self, program: Path, processor: str, kernels: str) -> None:
        options = ["-cpu", processor, str(program), kernels, str(GROUP), str(IMAGES)]
        self._command = [EMULATOR, *options]

    def run(self, tensors: Iterable[Tensor], labels: Tensor) -> subprocess.CompletedProcess[bytes]:
        """Exit status and output for a network's tensors and a batch."""
        data = b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)
        return subprocess.run(
            self._command,
            input=data + labels.numpy().tobytes(),
            capture_output=True,
            check=False,
        )


def tensors_of(model: MnistCnn) -> tuple[list[Tensor], list[Tensor]]:
    """A network's parameters, and its running statistics, in the order of step.hpp's Tensors."""
    blocks = (model.stem, model.block1, model.transition1, model.block2)
    layers = [(block.conv, block.norm) for block in (*blocks, model.transition2, model.block3)]
    layers.append((model.classifier, model.classifier_norm))
    norms = [norm for _, norm in layers]
    statistics = [buffer for norm in norms for buffer in [norm.running_mean] if buffer is not None]
    statistics += [buffer for norm in norms for buffer in [norm.running_var] if buffer is not None]
    parameters: list[Tensor] = [convolution.weight for convolution, _ in layers]
    parameters += [norm.weight for norm in norms] + [norm.bias for norm in norms]
    return parameters, statistics


@emulated
@pytest.mark.parametrize(
    ("kernels", "processor"),
    [
        pytest.param("scalar", "cortex-a72", marks=pytest.mark.thorough),
        pytest.param("neon", "cortex-a72", marks=pytest.mark.thorough),
        ("neon-bf16", "max"),
    ],
)
def test_gradients_on_arm_are_as_near_the_truth_as_torchs(
    kernels: str, processor: str, program: Path, mnist: MnistData
) -> None:
    x, y = images(mnist, IMAGES)
    exact, autocast, mine = network().double(), network(), network()
    true_losses, true_gradients = gradients(GroupedNetwork(exact, GROUP), x.double(), y)
    with torch.autocast("cpu", torch.bfloat16):
        _, torchs = gradients(GroupedNetwork(autocast, GROUP), x, y)

    parameters, statistics = tensors_of(mine)
    done = Emulated(program, processor, kernels).run([*parameters, *statistics, x], y)
    assert done.returncode == 0, done.stderr
    values = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32).double()
    sizes = [IMAGES, *(t.numel() for t in (*parameters, *statistics)), IMAGES * 10]
    losses, *made, logits = values.split(sizes)

    assert relative_error(losses, true_losses) < 0.002
    names = {id(parameter): name for name, parameter in mine.named_parameters()}
    for parameter, gradient in zip(parameters, made, strict=False):
        name = names[id(parameter)]
        truth = true_gradients[name]
        limit = 1.5 * relative_error(torchs[name], truth) + 0.01
        assert relative_error(gradient.view_as(truth), truth) < limit, name
    true_statistics = tensors_of(exact)[1]
    for ours, truth in zip(made[len(parameters) :], true_statistics, strict=True):
        assert relative_error(ours, truth) < 0.01
    exact.eval()
    with torch.no_grad():
        assert relative_error(logits.view(IMAGES, 10), exact(x.double())) < 0.02


@emulated
def test_a_processor_without_bf16_is_told_so(program: Path) -> None:
    assert Emulated(program, "cortex-a72", "neon-bf16").run([], torch.zeros(0)).returncode == ABSENT


@pytest.mark.thorough
@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_files_of_instruction_sets_share_no_function(
    tmp_path: Path, host_compiler: list[str]
) -> None:
    """The linker keeps one copy of a function that several files define, compiled for any of them.

    One of AVX-512 would end the process on a processor that only has AVX2.
    """
    architecture = hatch_build.architecture()
    objects = compile_all(host_compiler, architecture, tmp_path, "-Wall", "-Wextra", "-Werror")
    own = [*hatch_build.FILE_FLAGS[architecture], "scalar.cpp"]
    for name in own:
        listed = subprocess.run(
            ["nm", "--defined-only", "--demangle", objects[name]],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        shared = {line.split(maxsplit=2)[2] for line in listed if line.split()[1] in "WuVT"}
        assert {symbol for symbol in shared if not symbol.startswith("DW.ref.")} == set(), name


@pytest.fixture
def host_compiler() -> list[str]:
    """This system's compiler, for this processor."""
    compiler = hatch_build.system_compiler()
    if compiler is None or hatch_build.architecture() not in hatch_build.FILE_FLAGS:
        pytest.skip("no C++ compiler here, or compiled code has no instruction set of its own")
    return list(compiler.command)
