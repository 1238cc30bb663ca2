"""Loads the compiled library, checks whether this machine can use it, and sets its threads."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import get_args

from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import build
from mnist_cnn.recipe import Kernels, NativeKernels

LIBRARY = Path(__file__).with_name("libnative.so")
"""Path of the library."""

KINDS: tuple[NativeKernels, ...] = get_args(NativeKernels)
"""The instruction sets that compiled code knows, the fastest first where a processor multiplies
pairs of bfloat16 faster than float32; a library has those of its architecture."""

FAST_KINDS = KINDS[:-1]
"""The same without "scalar", the judge, which is slower than torch's operators."""

_FLOAT32: dict[Kernels, NativeKernels] = {"avx512-bf16": "avx512", "neon-bf16": "neon"}
"""For sets that multiply pairs of bfloat16: the set of equal vectors that multiplies in float32."""
_LEAST_GAIN = 1.2
"""How much faster pairs must be multiplied to gain: Winograd's filtering saves some of the products
in float32. On AMD's CPUs they are 1.8 times as fast, on Intel's half as fast."""
_TRIES, _ROUNDS = 5, 20_000
"""Multiplications of a try take about 0.1 ms; the fastest try counts."""

LAYERS = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")
"""Names of the network's layers, in its order."""


def unavailable_reason(kernels: Kernels = "scalar") -> str | None:
    """Why this machine cannot use compiled code of that instruction set; None where it can.

    Every library has the plain one.

    Raises:
        UsageError: the library is older than its source files.
    """
    if not LIBRARY.exists():
        return build.missing_reason()
    try:
        loaded = library()
    except OSError as error:
        return f"its library cannot be loaded here ({error}); {build.remedy()}"
    built = loaded.instruction_sets().decode().split()
    if kernels not in built:
        return f"this library is for {platform.machine()}: it has {', '.join(built)}"
    if not _runs(kernels):
        return f"this processor, or this system, does not execute {kernels} instructions"
    return None


@cache
def faster_of_pairs_and_float32(kernels: NativeKernels) -> NativeKernels:
    """The set, or that of equal vectors in float32 where this processor multiplies those faster.

    Having the instruction does not mean that it is fast: both are tried, for about a millisecond.

    Args:
        kernels: an instruction set that this machine can use.
    """
    plain = _FLOAT32.get(kernels)
    if plain is None or unavailable_reason(plain) is not None:
        return kernels
    of_pairs = of_plain = 0.0
    for _ in range(_TRIES):  # by turns: both at the same clock rate
        of_pairs, of_plain = max(of_pairs, _rate(kernels)), max(of_plain, _rate(plain))
    return kernels if of_pairs > _LEAST_GAIN * of_plain else plain


def _rate(kernels: NativeKernels) -> float:
    """Operations per second from registers."""
    start = perf_counter()
    operations = multiply(kernels, _ROUNDS)
    return operations / (perf_counter() - start)


@cache
def _runs(kernels: Kernels) -> bool:
    return bool(library().runs(kernels.encode()))


def set_threads(threads: int) -> None:
    """Set the number of threads that compute in this process; it starts with one.

    Raises:
        UsageError: the system starts no more threads for this process.
    """
    if not library().set_threads(threads):
        raise UsageError(
            f"the system does not start {threads} threads for this process: use fewer with "
            "--threads, or raise its limit (ulimit -u, pids.max)"
        )


def multiply(kernels: NativeKernels, rounds: int) -> float:
    """Multiply and add from registers on all threads, `rounds` times on each.

    Returns:
        The number of operations; a multiplication and an addition count as two.
    """
    return float(library().multiply(kernels.encode(), rounds))


def take_layer_seconds() -> dict[str, float]:
    """Seconds that compiled training steps have spent in each layer since the last call.

    Returns:
        Seconds by "stem forward", "stem backward" and so on. Where threads work in different
        layers, a thread's seconds are divided by the number of threads. With AMX nearly all of the
        stem's backward pass counts as block 1's.
    """
    seconds = (ctypes.c_double * (2 * len(LAYERS)))()
    library().take_layer_seconds(seconds)
    names = [f"{layer} {direction}" for layer in LAYERS for direction in ("forward", "backward")]
    return dict(zip(names, seconds, strict=True))


@cache
def library() -> ctypes.CDLL:
    """Load the library once, with the types of its functions.

    Raises:
        UsageError: it is older than its source files.
    """
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.sources.restype = ctypes.c_char_p
    if loaded.sources().decode() != source_sum():
        raise UsageError(f"the compiled code is not that of this source; {build.remedy()}")
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    text = ctypes.c_char_p
    signatures = {
        "step_new": (pointer, [integer, text]),
        "step_free": (None, [pointer]),
        "step_train": (
            None,
            [*[pointer] * 4, integer, real, real, real, ctypes.c_uint32, real, pointer],
        ),
        "step_measure": (None, [pointer, pointer, pointer, integer]),
        "step_infer": (None, [pointer, pointer, pointer, integer, pointer]),
        "step_kept": (None, [pointer, integer, integer, pointer]),
        "sgd": (None, [pointer, pointer, pointer, integer, real, real, real]),
        "augment": (None, [text, pointer, pointer, integer, pointer, real, real, pointer]),
        "take_layer_seconds": (None, [pointer]),
        "set_threads": (integer, [integer]),
        "threads": (integer, []),
        "instruction_sets": (text, []),
        "runs": (integer, [text]),
        "multiply": (ctypes.c_double, [text, integer]),
        "executes": (integer, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def source_sum() -> str:
    """SHA-256 of the source files, in order of their names; hatch_build.py computes the same."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.[ch]pp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
