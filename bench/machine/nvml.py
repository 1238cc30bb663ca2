"""NVIDIA's management library (NVML), asked one question at a time.

A driver, a virtualised GPU or an old binding may refuse any of them: each answer is a value, or
`NotReported` with the reason. The binding, nvidia-ml-py, is optional (the extra `energy`);
nothing but this file needs it.
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
    handle: Any

    def ask(self, *questions: str, about: Sequence[Any] = ()) -> Any:
        """What the first of these functions that this driver has says of the GPU.

        Args:
            questions: names without "nvmlDeviceGet", the newest first.
            about: what they take besides the GPU.

        Raises:
            NotTold: none of them answers.
        """
        reasons = []
        for question in questions:
            try:
                return getattr(self.library, f"nvmlDeviceGet{question}")(self.handle, *about)
            # The binding raises more than its NVMLError (where versions differ, a plain Exception),
            # and no reading is worth a run.
            except Exception as error:
                reasons.append(f"NVML refuses {question}: {error}")
        raise NotReported("; ".join(reasons))


def open_gpus(uuids: Sequence[str]) -> list[Gpu]:
    """The GPUs of these UUIDs, in their order.

    Args:
        uuids: as CUDA has them, without "GPU-".

    Raises:
        NotTold: one of them cannot be asked.
    """
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        raise NotReported("nvidia-ml-py is not installed: pip install nvidia-ml-py") from None
    try:
        library.nvmlInit()
        gpus = [Gpu(library, library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")) for uuid in uuids]
    except Exception as error:  # as above
        raise NotReported(f"NVML cannot be asked: {error}") from error
    if any(_is_shared(gpu) for gpu in gpus):
        raise NotReported("a part of a GPU (MIG): its counters are the whole one's")
    return gpus


def _is_shared(gpu: Gpu) -> bool:
    """Whether the GPU is cut into parts."""
    try:
        return bool(gpu.ask("MigMode")[0])
    except NotReported:  # by GPUs that cannot be
        return False
