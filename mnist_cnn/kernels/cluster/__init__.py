"""The training step as two CUDA kernels, one image a block, for Hopper and later."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from mnist_cnn.kernels.whole_steps import unsupported_part
from mnist_cnn.recipe import Recipe

LARGEST_GROUP = 16
"""Most blocks of a cluster on Hopper, and so most images of a batch norm's group."""
SHARED_BYTES = 227 << 10
"""Shared memory of a block: all that Hopper has."""


def unsupported_reason(recipe: Recipe) -> str | None:
    """Why the kernels cannot train a recipe; None where they can."""
    group = recipe.norm_batch_size or recipe.batch_size
    if group > LARGEST_GROUP:
        return f"they have batch norm over groups of at most {LARGEST_GROUP} images, not {group}"
    return unsupported_part(recipe)


def missing_hardware_reason() -> str | None:
    """Why the kernels cannot run on the current CUDA device, or lack a package; else None."""
    if torch.version.hip is not None:
        return "it is for NVIDIA's GPUs"
    properties = torch.cuda.get_device_properties()
    available = properties.shared_memory_per_block_optin
    if properties.major < 9 or available < SHARED_BYTES:
        return (
            "it needs clusters of blocks with 227 KiB of shared memory each, as an H100 has; "
            f"this is compute capability {properties.major}.{properties.minor} with "
            f"{available >> 10} KiB"
        )
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return "the package cuda-bindings is not installed"
    return None
