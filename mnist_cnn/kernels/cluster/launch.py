"""Arguments of the CUDA kernels, and their launch on a GPU."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from mnist_cnn.kernels.cluster import SHARED_BYTES

THREADS = 512
"""Threads of a block."""
_SHARED_BYTES = {"train_step": SHARED_BYTES, "evaluate": SHARED_BYTES, "update": 4 * THREADS}
"""Shared memory of a block; with less than all of it several blocks share a multiprocessor."""
_SOURCE = "network.cu"
KERNELS = tuple(_SHARED_BYTES)
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float


class Arguments(ctypes.Structure):
    """Arguments of a kernel, as arguments.cuh declares them; a tensor is given by its address."""

    _fields_: ClassVar[Any] = ()

    def __init__(self, **values: Tensor | float) -> None:
        """Take a value for each field; the tensors must outlive the launch."""
        assert list(values) == [name for name, _ in self._fields_], "each field, in order"
        super().__init__(
            **{
                name: value.data_ptr() if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
        )


class StepArguments(Arguments):
    """See arguments.cuh."""

    _fields_: ClassVar = [
        ("images", _POINTER),
        ("labels", _POINTER),
        ("order", _POINTER),
        ("distortions", _POINTER),
        ("position", _POINTER),
        ("step", _POINTER),
        ("weights", _POINTER),
        ("losses", _POINTER),
        ("gradients", _POINTER),
        ("statistics", _POINTER),
        ("count", _INT),
        ("scale", _FLOAT),
        ("offset", _FLOAT),
        ("smoothing", _FLOAT),
    ]


class EvaluationArguments(Arguments):
    """See arguments.cuh."""

    _fields_: ClassVar = [
        ("images", _POINTER),
        ("labels", _POINTER),
        ("weights", _POINTER),
        ("running", _POINTER),
        ("losses", _POINTER),
        ("correct", _POINTER),
        ("scale", _FLOAT),
        ("offset", _FLOAT),
    ]


class UpdateArguments(Arguments):
    """See arguments.cuh."""

    _fields_: ClassVar = [
        ("weights", _POINTER),
        ("velocities", _POINTER),
        ("average", _POINTER),
        ("running", _POINTER),
        ("average_running", _POINTER),
        ("gradients", _POINTER),
        ("statistics", _POINTER),
        ("rates", _POINTER),
        ("shares", _POINTER),
        ("step", _POINTER),
        ("position", _POINTER),
        ("count", _INT),
        ("groups", _INT),
        ("averages", _INT),
        ("momentum", _FLOAT),
        ("decay", _FLOAT),
    ]


class Launch(Protocol):
    """Starts a kernel."""

    def __call__(self, kernel: str, grid: int, cluster: int, arguments: Arguments) -> None:
        """Start `grid` blocks in clusters of so many blocks.

        Args:
            kernel: one of `KERNELS`.
            grid: number of blocks, a multiple of `cluster`.
            cluster: number of blocks of a cluster.
            arguments: those of the kernel.
        """
        ...


class CudaKernels:
    """The kernels on the current CUDA device: compiled by NVRTC, launched by the driver.

    Source: CUDA driver API, "Module management" and "Execution control"; a cluster of more than
    eight blocks must be allowed, as must more than 48 KiB of shared memory.

    Raises:
        RuntimeError: from the constructor, where the kernels do not compile for the device, or
            where the driver refuses; at a launch, where the driver refuses.
    """

    def __init__(self, device: torch.device) -> None:
        from cuda.bindings import driver

        self._driver = driver
        major, minor = torch.cuda.get_device_capability(device)
        torch.cuda.synchronize(device)  # makes the device's context, and it is the current one
        self._module = self._check(driver.cuModuleLoadData(compile_for(f"sm_{major}{minor}")))
        self._functions = {
            name: self._check(driver.cuModuleGetFunction(self._module, name.encode()))
            for name in KERNELS
        }
        attributes = driver.CUfunction_attribute
        for name, function in self._functions.items():
            for attribute, value in (
                (attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, _SHARED_BYTES[name]),
                (attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
            ):
                self._check(driver.cuFuncSetAttribute(function, attribute, value))

    def clusters_at_a_time(self, cluster: int) -> int:
        """Number of clusters of so many blocks that train at once; more wait for their turn.

        A cluster needs as many free multiprocessors in one part of the GPU (a GPC). How many a GPC
        has differs from chip to chip.
        """
        configuration = self._configuration("train_step", cluster, cluster)
        occupancy = self._driver.cuOccupancyMaxActiveClusters
        return int(self._check(occupancy(self._functions["train_step"], configuration)))

    def __call__(self, kernel: str, grid: int, cluster: int, arguments: Arguments) -> None:
        """See `Launch`; on torch's current stream."""
        configuration = self._configuration(kernel, grid, cluster)
        configuration.hStream = torch.cuda.current_stream().cuda_stream
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        self._check(
            self._driver.cuLaunchKernelEx(
                configuration, self._functions[kernel], ctypes.addressof(pointers), 0
            )
        )

    def _configuration(self, kernel: str, grid: int, cluster: int) -> Any:
        driver = self._driver
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        size = attribute.value.clusterDim
        size.x, size.y, size.z = cluster, 1, 1
        configuration = driver.CUlaunchConfig()
        configuration.gridDimX, configuration.gridDimY, configuration.gridDimZ = grid, 1, 1
        configuration.blockDimX, configuration.blockDimY, configuration.blockDimZ = THREADS, 1, 1
        configuration.sharedMemBytes = _SHARED_BYTES[kernel]
        configuration.attrs, configuration.numAttrs = [attribute], 1
        return configuration

    def _check(self, result: tuple[Any, ...]) -> Any:
        """The value that a function of the driver returns."""
        error, *values = result
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"CUDA driver: {error.name}")
        return values[0] if values else None


@cache
def compile_for(architecture: str) -> bytes:
    """The kernels' machine code (a cubin) for an architecture such as "sm_90"; needs no GPU.

    Raises:
        RuntimeError: NVRTC does not compile them; with its first words.
    """
    return compile_with_report(architecture)[0]


def compile_with_report(architecture: str) -> tuple[bytes, str]:
    """The same, and what the assembler reports of registers and spills."""
    from cuda.bindings import nvrtc

    folder = Path(__file__).parent
    headers = [(file.name.encode(), file.read_bytes()) for file in sorted(folder.glob("*.cuh"))]
    error, program = nvrtc.nvrtcCreateProgram(
        (folder / _SOURCE).read_bytes(),
        _SOURCE.encode(),
        len(headers),
        [content for _, content in headers],
        [name for name, _ in headers],
    )
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, error
    options = [f"-arch={architecture}".encode(), b"-std=c++20", b"--ptxas-options=-v"]
    error, *_ = nvrtc.nvrtcCompileProgram(program, len(options), options)
    report = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"CUDA C++ does not compile for {architecture}: {report[:200]}")
    code = _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    nvrtc.nvrtcDestroyProgram(program)
    return code, report


def _read(size_of: Any, read: Any, program: Any) -> bytes:
    _, size = size_of(program)
    content = bytes(int(size))  # filled in place
    read(program, content)
    return content
