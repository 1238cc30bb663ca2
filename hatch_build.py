"""Build hook: compiles mnist_cnn/kernels/native into a library next to its source, where possible.

Without a compiler, or on other processors, the package is installed without the library, and
torch's own operators do the same work. CXX names another compiler.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = [
    "-O3",
    "-std=c++20",
    "-pthread",
    "-fPIC",
    "-shared",
    "-mfma",
    "-mbmi2",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mavx512bf16",
    "-mavx512vbmi",
    "-mamx-tile",
    "-mamx-bf16",
]


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before a wheel or an editable install is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library; if that fails, say so on stderr and continue without it."""
        del version
        folder = Path(self.root) / "mnist_cnn" / "kernels" / "native"
        library = folder / "libnative.so"
        library.unlink(missing_ok=True)
        if platform.machine() not in ("x86_64", "AMD64") or sys.platform == "win32":
            return
        digest = hashlib.sha256()
        for path in sorted(folder.glob("*.[ch]pp")):
            digest.update(path.read_bytes())
        new_library = library.with_suffix(".new")
        command = [
            *shlex.split(os.environ.get("CXX", "c++")),
            *FLAGS,
            f'-DSOURCES="{digest.hexdigest()}"',
            *("-o", str(new_library)),
            *map(str, sorted(folder.glob("*.cpp"))),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        except FileNotFoundError:
            print("set-up: no C++ compiler; continuing without compiled code", file=sys.stderr)
            return
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(
                f"set-up: continuing without compiled code: {error}\n{error.stderr}",
                file=sys.stderr,
            )
            return
        new_library.replace(library)
        build_data["artifacts"].append("mnist_cnn/kernels/native/libnative.so")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
