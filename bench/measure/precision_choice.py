"""Which precision the activations have here: the fastest that the recipe and the device allow."""

from __future__ import annotations

import os
import platform

import torch

from bench.measure.kernel_choice import choose_kernels
from bench.measure.request import PRECISIONS, ComputeRequest
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import native
from mnist_cnn.recipe import Precision, Recipe

_ISAS_WITHOUT_FAST_BF16 = frozenset(
    ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
)
"""oneDNN's names. AVX2_VNNI_2 converts bf16 but multiplies in fp32."""


def choose_precision(compute: ComputeRequest, recipe: Recipe, device: str) -> Precision:
    """Return the precision of the activations; "auto" is the fastest that the recipe allows.

    Raises:
        UsageError: the device does not compute in it.
    """
    asked = compute.precision
    if asked == "auto":
        if recipe.precision != "auto":
            return "fp32"
        # Compiled code for CPUs stores bf16 on all of them, also where it multiplies in fp32.
        compiled = choose_kernels(compute.kernels, device, "bf16", recipe) in native.KINDS
        return "bf16" if compiled or multiplies_bf16_fast(device) else "fp32"
    known = next(precision for precision in PRECISIONS if precision == asked)
    if known == "fp16" and (reason := fp16_unsupported_reason(device)):
        raise UsageError(f"{reason}; use --precision bf16 or fp32")
    if known == "bf16" and not has_bf16(device):
        raise UsageError(f"this {device} device has no bf16; use --precision fp32")
    return known


def fp16_unsupported_reason(device: str) -> str | None:
    """Why a device cannot train in fp16; None where it can."""
    if device == "cpu":
        # torch reports fp16 there and computes in fp32.
        return "fp16 is not computed on a CPU"
    # torch.amp.GradScaler divides in float64 on all devices but MPS, and some XPUs have none.
    if device == "xpu" and not torch.xpu.get_device_capability()["has_fp64"]:
        return "fp16 needs float64 for the scale of its losses, which this xpu device lacks"
    return None


def has_bf16(device: str) -> bool:
    """Whether the device runs bf16 at all."""
    match device:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported())
        case "mps":
            return _macos_major() >= 14
        case _:
            return True


def multiplies_bf16_fast(device: str) -> bool:
    """Whether the hardware multiplies bf16 matrices faster than fp32 ones."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return has_bf16(device)
    # Elsewhere bf16 is several times slower than fp32. Two variables may limit a CPU:
    # ATEN_CPU_CAPABILITY bounds torch's loops, ONEDNN_MAX_CPU_ISA the convolutions.
    limited = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if limited or _onednn_limit() in _ISAS_WITHOUT_FAST_BF16:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _onednn_limit() -> str:
    """Newest instruction set that the environment allows oneDNN; "" for any.

    Source: https://oneapi-src.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    """
    # oneDNN ignores upper and lower case; DNNL_ is its older name, read where the new one is empty.
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    return next((value for name in names if (value := os.environ.get(name))), "").upper()


def _macos_major() -> int:
    return int((platform.mac_ver()[0] or "0").split(".")[0])
