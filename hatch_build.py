"""Build hook: compiles mnist_cnn/kernels/native into one library, libnative.so on every platform.

The compiler is the one that CXX names, else the system's, else the `ziglang` wheel. Where none
compiles it, the package is installed all the same and torch's own operators do the work;
libnative.txt in the library's place says why, in one line.

MNIST_BENCH_TARGET names the platform of a wheel for another machine: one of TARGETS, compiled by
ziglang, or "any" for a wheel without a library. `scripts/wheels` uses it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

NATIVE = "mnist_cnn/kernels/native"
LIBRARY, REASON = "libnative.so", "libnative.txt"

ZIGLANG = "ziglang==0.17.1"
"""The compiler for machines without one. scripts/lock pins its files."""

FLAGS = ("-O3", "-std=c++20", "-pthread", "-fPIC")
"""Flags of every file and of the library."""

_AVX512 = (
    *("-mfma", "-mbmi2", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    # GCC 12's own header of AVX-512 uses variables that it leaves undefined on purpose.
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),
)

FILE_FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "amx.cpp": (*_AVX512, "-mavx512bf16", "-mavx512vbmi", "-mamx-tile", "-mamx-bf16"),
        "avx512_bf16.cpp": (*_AVX512, "-mavx512bf16"),
        "avx512.cpp": _AVX512,
        "avx2.cpp": ("-mavx2", "-mfma"),
    },
    "aarch64": {"neon_bf16.cpp": ("-march=armv8.2-a+bf16",), "neon.cpp": ()},
}
"""By architecture, the files that only it has, with the flags of their instruction sets.

A file that no architecture names is compiled on all of them, with the baseline's instructions.
Flags are GCC's; clang knows them too.
"""


class Target(NamedTuple):
    """A platform that has a wheel with compiled code."""

    architecture: str
    """A key of FILE_FLAGS."""
    zig: str
    """The platform as ziglang names it, with the oldest system that its libraries run on."""


TARGETS = {
    "manylinux_2_17_x86_64": Target(architecture="x86_64", zig="x86_64-linux-gnu.2.17"),
    "manylinux_2_28_aarch64": Target(architecture="aarch64", zig="aarch64-linux-gnu.2.28"),
    "macosx_11_0_arm64": Target(architecture="aarch64", zig="aarch64-macos.11.0"),
}
"""By the platform tag of their wheels. The machines that torch has wheels for, without Windows."""


class CompilerError(Exception):
    """A compiler that does not start or that stops; the text is its first error, in one line."""


class Compiler(NamedTuple):
    """A C++ compiler."""

    command: tuple[str, ...]
    """The program and the arguments that it always gets."""
    name: str
    """What messages call it."""

    def run(self, arguments: Sequence[str], *, folder: Path, scratch: Path) -> None:
        """Run it.

        Args:
            arguments: its further arguments.
            folder: where it runs, so that its messages name the files there without a path.
            scratch: where it may leave files.

        Raises:
            CompilerError: it does not succeed.
        """
        command = [*self.command, *arguments]
        if self.name == "ziglang":  # it names an architecture's version as a processor's feature
            command = [
                re.sub(r"^-march=armv8\.(\d)-a", r"-mcpu=generic+v8_\1a", c) for c in command
            ]
        try:
            completed = subprocess.run(
                command,
                cwd=folder,
                # ziglang keeps what it compiles, its C++ library above all, in the user's cache,
                # but not every user has one.
                env={"ZIG_GLOBAL_CACHE_DIR": str(scratch / "zig")}
                | os.environ
                | {"ZIG_LOCAL_CACHE_DIR": str(scratch / "zig"), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise CompilerError(f"{self.name} does not start: {error.strerror}") from error
        if completed.returncode:
            lines = [line.strip() for line in completed.stderr.splitlines() if line.strip()]
            lines.append(f"exit status {completed.returncode}")
            first = next((line for line in lines if "error" in line.lower()), lines[0])
            raise CompilerError(f"{self.name} failed: {first}")


def architecture() -> str:
    """This machine's architecture, by the names of FILE_FLAGS."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def target_here() -> Target | None:
    """The target whose wheels run on this machine."""
    system = {"linux": "-linux-", "darwin": "-macos"}.get(sys.platform)
    return next(
        (t for t in TARGETS.values() if system and t.zig.startswith(architecture() + system)), None
    )


def sources(folder: Path, architecture: str) -> dict[str, tuple[str, ...]]:
    """The flags of each file to compile for an architecture, by the file's name."""
    own = FILE_FLAGS.get(architecture)
    if own is None:
        return {}
    others = {name for files in FILE_FLAGS.values() for name in files} - own.keys()
    names = sorted(path.name for path in folder.glob("*.cpp"))
    return {name: own.get(name, ()) for name in names if name not in others}


def system_compiler() -> Compiler | None:
    """The compiler that CXX names, else the first one of this system."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return Compiler(command=tuple(command), name=command[0])
    name = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    return Compiler(command=(name,), name=name) if name else None


def zig_compiler(target: Target) -> Compiler:
    """The compiler in the `ziglang` wheel; a target keeps it to the baseline's instructions."""
    command = (sys.executable, "-m", "ziglang", "c++", "-target", target.zig, "-g0", "-s")
    return Compiler(command=command, name="ziglang")


def compilers() -> list[Compiler]:
    """The compilers of this machine, in the order in which they are tried."""
    system, target = system_compiler(), target_here()
    zig = zig_compiler(target) if target and find_spec("ziglang") else None
    return [compiler for compiler in (system, zig) if compiler]


def works(compiler: Compiler, flags: set[str]) -> bool:
    """Whether a compiler starts, and knows these flags and the standard library."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "empty.cpp").write_text("#include <thread>\n")
        try:
            compiler.run(
                [*FLAGS, *flags, "-fsyntax-only", "empty.cpp"], folder=folder, scratch=folder
            )
        except CompilerError:
            return False
    return True


def compile_library(compiler: Compiler, files: dict[str, tuple[str, ...]], folder: Path) -> bytes:
    """Compile each file with its own flags, all cores at work, and link them.

    There is no time limit: on a busy machine it may take minutes, and a wheel without the library
    would stay in pip's cache.

    Args:
        compiler: the compiler.
        files: flags by file name.
        folder: where the files are.

    Returns:
        The library.

    Raises:
        CompilerError: the compiler does not succeed.
    """
    digest = hashlib.sha256()  # mnist_cnn/kernels/native/library.py computes the same
    for path in sorted(folder.glob("*.[ch]pp")):
        digest.update(path.read_bytes())

    with TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as threads:
        scratch = Path(temporary)

        def compile_file(name: str) -> str:
            compiled = str((scratch / name).with_suffix(".o"))
            define = f'-DSOURCES="{digest.hexdigest()}"'
            arguments = [*FLAGS, *files[name], define, "-c", name, "-o", compiled]
            compiler.run(arguments, folder=folder, scratch=scratch)
            return compiled

        objects = list(threads.map(compile_file, files))
        library = scratch / LIBRARY
        arguments = [*FLAGS, "-shared", "-o", str(library), *objects]
        compiler.run(arguments, folder=folder, scratch=scratch)
        return library.read_bytes()


def build_library(folder: Path) -> tuple[bytes | None, str]:
    """The library for this machine or for MNIST_BENCH_TARGET.

    Returns:
        The library, or None, and the reason why there is none or why a compiler was passed over.

    Raises:
        SystemExit: the library for another machine cannot be built.
    """
    named = named_target()
    if named == "any":
        return None, "this wheel is the one without compiled code"
    machine = TARGETS[named].architecture if named else architecture()
    files = sources(folder, machine) if sys.platform != "win32" else {}
    if not files:
        reason = f"there is no compiled code for {platform.system()} on {machine}"
        if named:
            raise SystemExit(f"set-up: {reason}")
        return None, reason
    failures: list[str] = []
    for compiler in [zig_compiler(TARGETS[named])] if named else compilers():
        try:
            return compile_library(compiler, files, folder), "; ".join(failures)
        except CompilerError as error:
            failures.append(str(error))
    reason = "; ".join(failures) or "no C++ compiler (CXX, c++, g++, clang++) and no ziglang"
    if named:
        raise SystemExit(f"set-up: {reason}")
    return None, reason


def named_target() -> str:
    """The target that MNIST_BENCH_TARGET names, or "any"; empty for this machine.

    Raises:
        SystemExit: there is no such target.
    """
    named = os.environ.get("MNIST_BENCH_TARGET", "")
    if named and named not in (*TARGETS, "any"):
        raise SystemExit(
            f"set-up: unknown MNIST_BENCH_TARGET {named!r}; there are: {', '.join(TARGETS)}, any"
        )
    return named


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before a wheel or an editable install is built."""

    def dependencies(self) -> list[str]:
        """Ziglang, where the build needs it: for another machine, or without a compiler."""
        if named := named_target():
            return [] if named == "any" else [ZIGLANG]
        here, system = target_here(), system_compiler()
        files = sources(Path(self.root, NATIVE), here.architecture) if here else {}
        flags = {flag for own in files.values() for flag in own}
        return [ZIGLANG] if files and not (system and works(system, flags)) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the library into the wheel, or beside its sources; else the reason.

        Args:
            version: "standard" or "editable".
            build_data: what hatchling puts into the wheel.
        """
        folder = Path(self.root, NATIVE)
        library, reason = build_library(folder)
        if library is None:
            message = f"no compiled training step: {reason}; PyTorch's operators are used"
            print(f"set-up: {message}, which are slower", file=sys.stderr)
        elif reason:
            print(f"set-up: {reason}; ziglang compiled it instead", file=sys.stderr)
        name, content = (REASON, f"{reason}\n".encode()) if library is None else (LIBRARY, library)
        if version == "editable":
            (folder / LIBRARY).unlink(missing_ok=True)
            (folder / REASON).unlink(missing_ok=True)
            place = folder / name
        else:
            # Not beside the sources: a wheel for another machine leaves this one's library alone.
            self._scratch = TemporaryDirectory()
            place = Path(self._scratch.name, name)
            build_data["force_include"][str(place)] = f"{NATIVE}/{name}"
        unfinished = place.with_suffix(".new")
        unfinished.write_bytes(content)
        unfinished.replace(place)  # a process that has loaded the old one keeps it
        if library is not None:
            # A library that ctypes loads depends on the platform, not on the version of Python.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{os.environ.get('MNIST_BENCH_TARGET') or local_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what initialize made for the wheel."""
        del build_data, artifact_path
        if version != "editable":
            self._scratch.cleanup()


def local_tag() -> str:
    """The platform tag of wheels that stay on this machine."""
    platforms = (tag.platform for tag in sys_tags())
    return next(p for p in platforms if not p.startswith(("manylinux", "musllinux")))
