"""How a user gets the compiled code where it was not built."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

_SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"
"""Exists in a checkout; an installed copy has no scripts."""
_MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")
"""Processors that hatch_build.py compiles for, as the system names them."""


def is_for_this_platform() -> bool:
    """Whether there is compiled code for processors and systems like this one at all."""
    return platform.machine() in _MACHINES and sys.platform != "win32"


def remedy() -> str:
    """What builds the compiled code of this copy, as an imperative."""
    if _SETUP.exists():
        return "run ./scripts/setup with a C++20 compiler, c++ or $CXX"
    return (
        "install the wheel for this platform or, with a C++20 compiler: pip install "
        "--force-reinstall --no-deps --no-cache-dir --no-binary mnist-bench mnist-bench"
    )
