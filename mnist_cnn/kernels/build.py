"""Why there is no compiled code, and how a user gets it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

_SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"
"""Exists in a checkout; an installed copy has no scripts."""
_REASON = Path(__file__).resolve().parent / "native" / "libnative.txt"
"""One line by hatch_build.py, where it could not build the library."""
_MACHINES = ("x86_64", "amd64", "aarch64", "arm64")
"""Processors that hatch_build.py compiles for, by the names that systems give them."""


def is_for_this_platform() -> bool:
    """Whether there is compiled code for processors and systems like this one at all."""
    return platform.machine().lower() in _MACHINES and sys.platform != "win32"


def missing_reason() -> str:
    """Why the library is missing, as far as is known, and the remedy."""
    if not is_for_this_platform():
        return "there is none for this platform"
    try:
        why = f" ({' '.join(_REASON.read_text('utf-8', errors='replace').split())})"
    except OSError:
        why = ""
    return f"it was not built{why}: {remedy()}"


def remedy() -> str:
    """What builds the compiled code of this copy, as an imperative."""
    if _SETUP.exists():
        return "run ./scripts/setup with a C++20 compiler, c++ or $CXX"
    return (
        "install the wheel for this platform or, in a checkout with a C++20 compiler: pip install "
        "--force-reinstall --no-deps --no-cache-dir ."
    )
