"""NVIDIA's management library (NVML), one question at a time.

A driver, a virtual GPU or an old binding may refuse any question: each answer is a value, or
`NotReported` with the reason. The binding, nvidia-ml-py, is optional (the extra `energy`), and only
this file uses it.
Source: https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from bench.machine.system import NotReported


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as NVML knows it."""

    library: ModuleType
    """The module pynvml."""
    handle: Any
    """NVML's handle of the GPU."""

    def ask(self, *questions: str, about: Sequence[Any] = ()) -> Any:
        """The answer of the first function that works.

        Args:
            questions: names of functions without "nvmlDeviceGet", the newest first.
            about: further arguments of these functions.

        Raises:
            NotReported: no function works.
        """
        reasons = []
        for question in questions:
            try:
                return getattr(self.library, f"nvmlDeviceGet{question}")(self.handle, *about)
            # The binding raises more than NVMLError (a plain Exception if versions differ), and no
            # reading may end a run.
            except Exception as error:
                reasons.append(f"NVML refuses {question}: {error}")
        raise NotReported("; ".join(reasons))


def open_gpus(uuids: Sequence[str]) -> list[Gpu]:
    """The GPUs with these UUIDs, in this order.

    Args:
        uuids: UUIDs as CUDA reports them, without "GPU-".

    Raises:
        NotReported: NVML is missing, or one of the GPUs is unknown or shared.
    """
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        raise NotReported("nvidia-ml-py is not installed: pip install nvidia-ml-py") from None
    try:
        library.nvmlInit()
        gpus = [Gpu(library, library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")) for uuid in uuids]
    except Exception as error:  # as above
        raise NotReported(f"NVML cannot be used: {error}") from error
    if any(_is_shared(gpu) for gpu in gpus):
        raise NotReported("a part of a GPU (MIG): the counters are for the whole GPU")
    return gpus


def _is_shared(gpu: Gpu) -> bool:
    """Whether the GPU is divided into parts (MIG)."""
    try:
        return bool(gpu.ask("MigMode")[0])
    except NotReported:  # GPUs without MIG refuse the question
        return False
