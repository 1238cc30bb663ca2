"""The CUDA kernels on a CPU: network.cu, compiled over emulation.hpp."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from mnist_cnn.kernels import cluster
from mnist_cnn.kernels.cluster.launch import Arguments

_HERE = Path(__file__).parent
_KERNELS = Path(cluster.__file__).parent


def sources() -> dict[str, str]:
    """The kernels' source files, by their names."""
    return {path.name: path.read_text("utf-8") for path in _KERNELS.glob("*.cu*")}


class EmulatedKernels:
    """See `mnist_cnn.kernels.cluster.launch.Launch`.

    Args:
        folder: where the compiled library goes.
        exact: whether halves are float32, so that nothing but the order of sums differs.
        changed: other contents of some of the source files, by their names.
    """

    def __init__(
        self, folder: Path, *, exact: bool, changed: Mapping[str, str] | None = None
    ) -> None:
        compiler = shutil.which("c++")
        if compiler is None:
            pytest.skip("there is no C++ compiler")
        library = folder / f"emulated-{exact}.so"
        options = ["-std=c++20", "-O2", "-fno-strict-aliasing", "-fPIC", "-shared"]
        warnings = ["-Wall", "-Wno-unknown-pragmas", "-Wno-clobbered", "-Werror"]
        for name, content in (sources() | dict(changed or {})).items():
            (folder / name).write_text(content)
        folders = [f"-I{folder}", f"-I{_HERE}"]
        kind = ["-DEXACT"] if exact else []
        subprocess.run(
            [compiler, *options, *warnings, *folders, *kind, _HERE / "emulated.cpp", "-o", library],
            check=True,
        )
        self.library = ctypes.CDLL(str(library))
        self.order = 0
        """Other than 0: seed of the order in which threads run between their meetings."""

    def __call__(self, kernel: str, grid: int, cluster: int, arguments: Arguments) -> None:
        """Run a kernel; threads that wait for ever end the process."""
        getattr(self.library, f"launch_{kernel}")(
            grid, cluster, self.order, ctypes.byref(arguments)
        )
