"""The compiled library: where it is, whether it can be used here, and what it is told to use."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path

from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Kernels

LIBRARY = Path(__file__).with_name("libnative.so")

KINDS: tuple[Kernels, ...] = ("amx", "avx512")
"""The kinds of compiled code there are, the fastest first."""

LAYERS = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")


def unavailable_reason(kernels: Kernels = "avx512") -> str | None:
    """Why compiled code of that kind cannot be used on this machine, or None where it can.

    Raises:
        UsageError: the library is older than its source.
    """
    if not LIBRARY.exists():
        return (
            "it was not built: ./scripts/setup needs an x86-64 machine and a C++20 compiler for it"
        )
    if not library().supported():
        return "this processor has no AVX512-BF16, or not AVX512-VBMI beside it"
    if kernels == "amx" and not library().tiles_supported():
        return "this processor has no AMX-BF16, or this system does not let it be used"
    return None


def set_threads(threads: int) -> None:
    """From now on let so many threads of this process compute; at first there is one."""
    library().set_threads(threads)


def take_layer_seconds() -> dict[str, float]:
    """Seconds that compiled training steps have spent in each layer since this was last asked.

    Returns:
        By "stem forward", "stem backward" and so on; where each thread is in a layer of its own,
        each one's seconds divided by their number. With tiles nearly all of the stem's way back is
        in block 1's.
    """
    seconds = (ctypes.c_double * (2 * len(LAYERS)))()
    library().take_layer_seconds(seconds)
    ways = [f"{layer} {way}" for layer in LAYERS for way in ("forward", "backward")]
    return dict(zip(ways, seconds, strict=True))


@cache
def library() -> ctypes.CDLL:
    """Loaded once, its functions with their types.

    Raises:
        UsageError: it is older than its source.
    """
    loaded = ctypes.CDLL(str(LIBRARY))
    loaded.sources.restype = ctypes.c_char_p
    if loaded.sources().decode() != source_sum():
        raise UsageError("the compiled code is not that of this source; run ./scripts/setup again")
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    signatures = {
        "step_new": (pointer, [integer, integer]),
        "step_free": (None, [pointer]),
        "step_train": (
            None,
            [*[pointer] * 4, integer, real, real, real, ctypes.c_uint32, real, pointer],
        ),
        "step_infer": (None, [pointer, pointer, pointer, integer, pointer]),
        "step_kept": (None, [pointer, integer, integer, pointer]),
        "sgd": (None, [pointer, pointer, pointer, integer, real, real, real]),
        "augment": (None, [pointer, pointer, integer, pointer, real, real, pointer]),
        "take_layer_seconds": (None, [pointer]),
        "set_threads": (None, [integer]),
        "threads": (integer, []),
        "supported": (integer, []),
        "tiles_supported": (integer, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def source_sum() -> str:
    """SHA-256 over the source files, by name; hatch_build.py computes the same."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.[ch]pp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
