"""`mnist-bench` on a recipe of seconds, by a rank that may be told to end itself by SIGKILL.

A program, not a test: `tests/measure/test_resume.py` starts it.
DIE="<rank> <place> <run>" says where.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.cli import main
from bench.measure import session
from bench.measure.workload import MnistTraining
from mnist_cnn import disk, recipe
from mnist_cnn.batches import Batches
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine import checkpoint
from mnist_cnn.engine.eager import EagerEngine
from mnist_cnn.engine.ema import WeightEma
from mnist_cnn.events import Event
from mnist_cnn.rank import exit_process

IMAGES = 1_280
EVALUATION_IMAGES = 200

recipe.RECIPES["tiny"] = replace(
    recipe.FAST,
    name="tiny",
    epochs=3,
    evaluate_from_epoch=1,
    whole_epochs=2,
    average_interval=3,
    dropout=0.1,
)
_split, _run = MnistData.split, MnistTraining.run
_begun: list[int] = []
"""Seeds of the runs so far; the warm-up is none."""


def _few_images(self: MnistData, evaluation_split: recipe.EvaluationSplit) -> Split:
    whole = _split(self, evaluation_split)
    return Split(
        whole.train_images[:IMAGES],
        whole.train_labels[:IMAGES],
        whole.evaluation_images[:EVALUATION_IMAGES],
        whole.evaluation_labels[:EVALUATION_IMAGES],
    )


def _counted(self: MnistTraining, seed: int) -> Generator[Event, None, None]:
    _begun.append(seed)
    return _run(self, seed)


setattr(MnistData, "split", _few_images)  # noqa: B010
setattr(MnistTraining, "run", _counted)  # noqa: B010


def die_at(owner: Any, name: str, run: int, call: int, first: Callable[..., None]) -> None:
    """Have a function, called so often in that run, do something else and no more."""
    original, calls = getattr(owner, name), 0

    def fatal(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += len(_begun) == run
        if len(_begun) == run and calls == call:
            first(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, fatal)


def nothing(*_: Any) -> None:
    """Die at once."""


def half_a_file(path: Path, content: bytes) -> None:
    """Die in the middle of writing."""
    path.with_name(f".{path.name}.{os.getpid():x}.tmp").write_bytes(content[: len(content) // 2])


if "DIE" in os.environ and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
    rank, place, run = os.environ["DIE"].split()
    if rank == os.environ.get("RANK", "0"):
        steps = IMAGES // recipe.FAST.batch_size
        match place:
            case "init":
                die_at(Batches, "load", int(run), 1, nothing)
            case "first-step":
                die_at(WeightEma, "after_step", int(run), 1, nothing)
            case "mid-epoch":
                die_at(WeightEma, "after_step", int(run), steps + 3, nothing)
            case "evaluation":
                die_at(EagerEngine, "count", int(run), 2, nothing)
            case "checkpoint":
                die_at(checkpoint, "replace_file", int(run), 2, half_a_file)
            case "save" if rank == "0":
                die_at(disk, "rename_to_new", int(run), 1, nothing)
            case "save":
                die_at(session, "explained", int(run), 1, nothing)

exit_process(main(sys.argv[1:]))
