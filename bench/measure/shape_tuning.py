"""Launch parameters of the Triton kernels for this GPU: measured, tuned before, or tuned now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from bench.measure.clock import DeviceClock
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.disk import read_text, replace_file
from mnist_cnn.engine.capture import capture_cuda_graph
from mnist_cnn.errors import UsageError
from mnist_cnn.folder_lock import locked
from mnist_cnn.kernels import triton
from mnist_cnn.kernels.buffers import device_buffers
from mnist_cnn.kernels.triton import is_shortage
from mnist_cnn.kernels.triton.shapes import SHAPES, Shape, Shapes, halved
from mnist_cnn.kernels.triton.tuning import BrokenDeviceError, is_possible, tune
from mnist_cnn.train import seeded_model
from mnist_cnn.user_folders import cache_folder

LONGEST_SECONDS = 30.0
"""Longest search after the first parameters run; what is being compiled then is still tried."""
MEASURED_ON = ("NVIDIA H200", "NVIDIA H100")
"""GPUs, by the start of their names, whose chip the table of `SHAPES` was measured on."""
_LARGEST_BYTES = 1 << 16
"""Most bytes of a file of tuned shapes."""
_STEPS, _REPEATS = 8, 5

SecondsOf = Callable[[Shapes], float]
"""How long some steps take with given launch parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenShapes:
    """Launch parameters for a device."""

    shapes: Shapes
    seconds: float
    """Time that the search took in this process, which is on no clock."""
    store: _Store | None = None
    """Where they are kept; None where they were not searched."""

    def distrust(self) -> bool:
        """Have later processes take the table's parameters: with these the steps are wrong.

        Returns:
            Whether later processes take others than this one did.
        """
        if self.store is None or self.shapes == SHAPES:
            return False
        return self.store.write(SHAPES)


def choose_shapes(
    context: TrainingContext,
    clock: DeviceClock,
    notify: Callable[[str], None],
    seconds_of: SecondsOf | None = None,
) -> ChosenShapes:
    """The launch parameters for the context's device; one search for each kind of GPU and software.

    What was found is kept in the user's cache folder, where later processes find it. A process that
    starts meanwhile waits: two searches on one GPU would disturb each other.

    Args:
        context: what will be trained, by the Triton kernels, on a CUDA device.
        clock: the device's clock.
        notify: called with a line where a search begins or is waited for.
        seconds_of: times some steps; None for those of the kernels on the device.

    Raises:
        UsageError: parameters that were tried have broken the device for this process.
    """
    measured = ChosenShapes(shapes=SHAPES, seconds=0.0)
    if not torch.cuda.is_available():  # where Triton's interpreter trains
        return measured
    name = torch.cuda.get_device_name()
    if name.startswith(MEASURED_ON):
        return measured
    try:
        key = _key(context, name)
    except Exception:  # a Triton that cannot be imported: what then trains is tried later
        return measured
    begin = clock.now()
    search = _Search(context, clock, notify, seconds_of)
    store = _Store(key)
    shapes = store.read_or_search(search, notify) or SHAPES
    if search.fault is not None:
        raise UsageError(
            f"launch parameters of Triton's kernels that were tried on {name} have broken it for "
            f"this process ({search.fault}); they will not be tried again: run the command again"
        )
    return ChosenShapes(shapes=shapes, seconds=clock.now() - begin, store=store)


class _Search:
    """A search for launch parameters; see `choose_shapes`."""

    def __init__(
        self,
        context: TrainingContext,
        clock: DeviceClock,
        notify: Callable[[str], None],
        seconds_of: SecondsOf | None,
    ) -> None:
        self._context, self._clock, self._notify = context, clock, notify
        self._seconds_of = seconds_of
        self._end: float | None = None
        self._tried = 0
        self.fault: str | None = None
        """The first line of the error by which the device broke; None where it did not."""

    def __call__(self) -> Shapes | None:
        """What was found; None where nothing runs or nothing was tried."""
        name = torch.cuda.get_device_name()
        self._notify(
            f"finding Triton's launch parameters for {name}: at most {LONGEST_SECONDS:.0f} s, once"
        )
        # Where the table's parameters ask for too much, smaller ones run.
        for table in (SHAPES, halved(SHAPES)):
            try:
                measure = self._seconds_of or _StepTimer(self._context, self._clock)
                shapes = tune(table, measure, self._is_over)
            except BrokenDeviceError as error:
                self.fault = str(error.__cause__).partition("\n")[0]
                return error.shapes
            except Exception as error:  # what then trains is tried later
                if not is_shortage(error):
                    return None
            else:
                return shapes if self._tried else None
        return None

    def _is_over(self) -> bool:
        """Whether the time is over. It begins here: the first parameters take long to compile."""
        now = self._clock.now()
        if self._end is None:
            self._end = now + LONGEST_SECONDS
        is_over = now > self._end
        self._tried += not is_over
        return is_over


class _Store:
    """Keeps what a search has found, in the user's cache folder.

    Args:
        key: what a search depends on.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def read_or_search(
        self, search: Callable[[], Shapes | None], notify: Callable[[str], None]
    ) -> Shapes | None:
        """What was kept; else what `search` finds, which is then kept if possible."""
        searched, shapes = False, None
        # Without a folder, or without a lock, nothing is kept.
        with suppress(UsageError, OSError, NotImplementedError):
            folder = _folder()
            with locked(folder, notify, purpose="finds Triton's launch parameters"):
                shapes = _read(folder / self._name, self._key)
                if shapes is None:
                    searched, shapes = True, search()
                    if shapes is not None:
                        self.write(shapes)
        return shapes if searched or shapes is not None else search()

    def write(self, shapes: Shapes) -> bool:
        """Keep these; returns whether they could be kept."""
        try:
            replace_file(_folder() / self._name, _content(shapes, self._key))
        except (UsageError, OSError):
            return False
        return True


def _folder() -> Path:
    """Where parameters are kept.

    Raises:
        UsageError: there is no cache folder.
    """
    return cache_folder() / "triton-shapes"


def _key(context: TrainingContext, name: str) -> str:
    """What a search depends on.

    Raises:
        Exception: Triton cannot be imported.
    """
    source = (Path(triton.__file__).parent / "kernels.py").read_bytes()
    parts = {
        "gpu": name,
        "capability": torch.cuda.get_device_capability(),
        "torch": torch.__version__,
        "triton": import_module("triton").__version__,  # its package has several names
        "kernels": hashlib.sha256(source).hexdigest(),
        "precision": str(context.accelerator.mixed_precision),
        "batch_size": context.recipe.batch_size,
    }
    return json.dumps(parts)


def _content(shapes: Shapes, key: str) -> bytes:
    rows = {
        kernel: {str(side): asdict(shape) for side, shape in by_side.items()}
        for kernel, by_side in shapes.items()
    }
    return json.dumps({"key": json.loads(key), "shapes": rows}, indent=1).encode()


def _read(path: Path, key: str) -> Shapes | None:
    """What was kept; None where nothing was, or not what the kernels take."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        kept = json.loads(read_text(path, _LARGEST_BYTES))
        if kept["key"] == json.loads(key):
            return {
                kernel: {
                    side: _shape(kept["shapes"][kernel][str(side)], shape)
                    for side, shape in by_side.items()
                }
                for kernel, by_side in SHAPES.items()
            }
    return None


def _shape(values: Mapping[str, Any], like: Shape) -> Shape:
    """A shape from its values.

    Raises:
        ValueError: the kernels do not take it.
        TypeError: a value is missing or has another name.
    """
    shape = Shape(**values)
    whole = [value for value in asdict(shape).values() if value is not None]
    same_kind = (shape.stages is None) == (like.stages is None)
    if not all(type(value) is int for value in whole) or not same_kind or not is_possible(shape):
        raise ValueError("no launch parameters")
    return shape


class _StepTimer:
    """Times captured steps on images that are all black: no time depends on them."""

    def __init__(self, context: TrainingContext, clock: DeviceClock) -> None:
        self._context, self._clock = context, clock
        black = torch.zeros(1, 28, 28, dtype=torch.uint8)
        label = torch.zeros(1, dtype=torch.int64)
        self._buffers = device_buffers(context, Split(black, label, black, label))
        self._model = seeded_model(context.recipe, 0).to(self._buffers.images.device)

    def __call__(self, shapes: Shapes) -> float:
        """Seconds of eight steps, the least of five times."""
        # Lazy: Triton is slow to import, and not every machine has it.
        from mnist_cnn.kernels.triton.network import TritonProgram

        program = TritonProgram(self._context, self._buffers, shapes)
        program.load(self._model)

        def run_steps() -> None:
            for _ in range(_STEPS):
                program.train(self._context.recipe.batch_size)

        replay = capture_cuda_graph(run_steps, self._rewind)
        times = []
        for _ in range(_REPEATS):
            self._rewind()
            begin = self._clock.now()
            replay()
            times.append(self._clock.now() - begin)
        return min(times)

    def _rewind(self) -> None:
        self._buffers.step.zero_()
        self._buffers.position.zero_()
