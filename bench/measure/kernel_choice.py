"""Which code computes a step here: the fastest that fits, or why what was asked for does not."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.util import find_spec
from time import perf_counter

from bench.measure.request import KERNELS
from mnist_cnn.batch_norm import unshared_reason
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import cluster, native, triton
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import Kernels, NativeKernels, Precision, Recipe

_LEAST_GAIN = 1.2
"""How much faster pairs of bfloat16 must be multiplied than float32 to gain: Winograd's filtering
saves some of the products in float32. A Zen 5 EPYC makes 1.8 times as many operations a second of
pairs, a Xeon with AMX half as many."""
_TRIES, _ROUNDS = 5, 20_000
"""Multiplications of a try take about 0.1 ms; the fastest try counts."""


def choose_kernels(asked: str, device: str, precision: Precision, recipe: Recipe) -> Kernels:
    """Return what computes a step; "auto" is the fastest compiled code that is usable, or torch.

    Args:
        asked: one of `KERNELS`, or "auto".
        device: a device type.
        precision: the precision of the matrix products.
        recipe: the recipe to train.

    Raises:
        UsageError: the compiled code cannot be used here.
    """

    def unavailable_reason(kernels: Kernels) -> str | None:
        if kernels == "torch":
            return None
        if kernels == "triton":
            return triton_unsupported_reason(device, precision, recipe)
        if kernels == "cluster":
            return cluster_unsupported_reason(device, precision, recipe)
        if kernels == "inductor":
            return unshared_reason(
                recipe, Rank.from_environment().world_size
            ) or compiler_unavailable_reason(device)
        return native_unfit_reason(device, precision, recipe) or native.unavailable_reason(kernels)

    if asked == "auto":
        if not unavailable_reason("triton"):
            return "triton"
        usable = (kind for kind in native.FAST_KINDS if not unavailable_reason(kind))
        best = next(usable, None)
        return "torch" if best is None else faster_products(best)
    known = next(kernels for kernels in KERNELS if kernels == asked)
    if reason := unavailable_reason(known):
        raise UsageError(f"--kernels {known} cannot be used: {reason}; use --kernels auto")
    return known


@cache
def faster_products(kernels: NativeKernels) -> NativeKernels:
    """The set, or that of equal vectors in float32 where this processor multiplies those faster.

    Having the instruction does not mean that it is fast: both are tried, for about a millisecond.

    Args:
        kernels: an instruction set that this machine can use.
    """
    plain = native.FLOAT32_OF_PAIRS.get(kernels)
    if plain is None or native.unavailable_reason(plain) is not None:
        return kernels
    of_pairs = of_plain = 0.0
    for _ in range(_TRIES):  # by turns: both at the same clock rate
        of_pairs, of_plain = max(of_pairs, _rate(kernels)), max(of_plain, _rate(plain))
    return kernels if of_pairs > _LEAST_GAIN * of_plain else plain


def _rate(kernels: NativeKernels) -> float:
    """Operations per second from registers."""
    start = perf_counter()
    operations = native.multiply(kernels, _ROUNDS)
    return operations / (perf_counter() - start)


def native_unfit_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why compiled code cannot train a recipe, whether it was built or not; None where it can."""
    if reason := unshared_reason(recipe, Rank.from_environment().world_size):
        return reason
    if device != "cpu":
        return "it is for CPUs"
    if precision != "bf16":
        return f"it computes in bf16, not {precision}"
    return None


def compiler_unavailable_reason(device: str) -> str | None:
    """Why torch's compiler cannot fuse operators on this device; None where it can."""
    if device == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed"
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return None


def triton_unsupported_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why the Triton kernels cannot train a recipe here; None where they can."""
    if precision == "fp16":
        return "it computes in bf16 or fp32, not fp16"
    return (
        _whole_step_unsupported_reason(device, recipe)
        or triton.unsupported_reason(recipe)
        or compiler_unavailable_reason(device)
    )


def cluster_unsupported_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why the CUDA kernels cannot train a recipe here; None where they can."""
    if precision != "bf16":
        return f"it computes in bf16, not {precision}"
    return (
        _whole_step_unsupported_reason(device, recipe)
        or cluster.unsupported_reason(recipe)
        or cluster.missing_hardware_reason()
    )


def _whole_step_unsupported_reason(device: str, recipe: Recipe) -> str | None:
    """Why kernels of whole steps on a GPU do not fit, whichever they are; None where they may."""
    if device != "cuda":
        return "it is for CUDA devices"
    if Rank.from_environment().world_size > 1:
        return "it is for one process"
    if recipe.pipeline != "resident":
        return f"it takes resident images, not the {recipe.pipeline}'s"
    return None
