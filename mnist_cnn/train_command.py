"""Trains, prints one line per epoch and saves the weights: behind `python -m mnist_cnn train`."""

from __future__ import annotations

import math
import secrets
import shlex
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import distributed, nn

from mnist_cnn import console, train as training
from mnist_cnn.context import TrainingContext
from mnist_cnn.data import dataset
from mnist_cnn.disk import advice_for
from mnist_cnn.distributed import (
    PROCESS_GROUP_TIMEOUT,
    meet_on_loopback,
    process_group,
    use_loopback_interface,
)
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.events import EpochTrained, Evaluated, Event
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.inference.weights import save_weights
from mnist_cnn.process import asked_to_end
from mnist_cnn.rank import Rank, is_one_machine, leftover_hint, prints_problems
from mnist_cnn.recipe import DEVICES, Recipe
from mnist_cnn.surroundings import check_all_started
from mnist_cnn.user_folders import save_elsewhere

_LAUNCH = (
    "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node {processes} -m mnist_cnn train"
)
_NOTICE_SECONDS = 5.0
"""Seconds of waiting after which the user is told what for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """One training, as the command line asks for it."""

    recipe: Recipe
    """Recipe to train by."""
    target_accuracy: float
    """Accuracy to report as reached, as a fraction."""
    seed: int
    """Seed of the weights, the order and the distortions."""
    data_dir: Path | None
    """Folder of MNIST; None for the default folder."""
    save: Path | None
    """File to which the weights are saved; None to save none."""


def run_training(request: TrainRequest) -> int:
    """Train, report and save.

    Returns:
        The exit status.

    Raises:
        UsageError: the data cannot be found or loaded, or the processes cannot train together.
    """
    recipe, seed = request.recipe, request.seed
    # Before the ranks meet: a first download may take longer than they wait for each other.
    data = dataset.load(request.data_dir).split(recipe.evaluation_split)
    accelerator = _make_accelerator()
    try:
        model = training.seeded_model(recipe, seed)
        console.print_from_main(
            f"recipe {recipe.name}: {recipe.epochs} epochs, batch {recipe.batch_size}, "
            f"seed {seed}, on {accelerator.device.type} x {accelerator.num_processes}"
        )
        context = TrainingContext(recipe, accelerator)
        with (
            closing(training.train(model, context, data, seed)) as events,
            closing(_until_asked_to_end(events)) as interruptible_events,
        ):
            if not _report(interruptible_events, recipe, request.target_accuracy):
                return console.EXIT_FAILED
        if request.save is not None and accelerator.is_main_process:
            metadata = _provenance(request, accelerator).metadata()
            return _save(model, request.save, metadata)
        return 0
    finally:
        accelerator.end_training()


def _save(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> int:
    """Save the weights; where that fails keep them elsewhere, and say in one line where.

    Returns:
        The exit status.
    """
    try:
        save_weights(model, path, metadata)
    except OSError as error:
        problem = f"error: cannot write {path}: {reason_of(error)}; {advice_for(error)}"
        kept = save_elsewhere(
            secrets.token_hex(4), lambda folder: _save_in(folder, model, metadata)
        )
        if kept is None:
            console.complain(f"{problem}; the weights are lost: no other folder takes them")
        else:
            command = f"mv {shlex.quote(str(kept))} {shlex.quote(str(path))}"
            console.complain(f"{problem}; the weights are kept as {kept}; then: {command}")
        return console.EXIT_FAILED
    console.print_from_main(f"saved {path}")
    return 0


def _save_in(folder: Path, model: nn.Module, metadata: Mapping[str, str]) -> Path:
    path = folder / "model.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, path, metadata)
    return path


def _provenance(request: TrainRequest, accelerator: Accelerator) -> Provenance:
    return Provenance(
        recipe=request.recipe.name,
        epochs=request.recipe.epochs,
        seed=request.seed,
        target_accuracy=request.target_accuracy,
        device=accelerator.device.type,
        processes=accelerator.num_processes,
        torch_version=str(torch.__version__),
    )


def _make_accelerator() -> Accelerator:
    """The device and the ranks for which this process was started.

    Always in fp32 and uncompiled, whatever the user's Accelerate configuration says.

    Raises:
        UsageError: several processes were started, but they do not know each other; or Accelerate
            takes a device that is not supported.
    """
    check_all_started(_LAUNCH.format(processes=2))
    rank = Rank.from_environment()
    processes, store = rank.world_size, None
    if processes > 1 and is_one_machine():
        use_loopback_interface()
        store = meet_on_loopback(rank)
    try:
        with _announced_waiting(processes):
            accelerator = Accelerator(
                mixed_precision="no",
                dynamo_backend="no",
                kwargs_handlers=[process_group()],
            )
        del store  # they have met, and the process group keeps it
    except distributed.DistError as error:
        remedy = leftover_hint() or "see what the others say"
        raise UsageError(
            f"the {processes} processes did not come together within "
            f"{PROCESS_GROUP_TIMEOUT.total_seconds():.0f} s; {remedy}"
        ) from error
    if accelerator.device.type not in DEVICES:
        raise UsageError(
            f"{accelerator.device.type} devices are not supported; to train on the CPU: "
            "ACCELERATE_USE_CPU=true"
        )
    if accelerator.num_processes != processes:
        raise UsageError(
            f"{processes} processes were started but each trains alone; without a GPU for each, "
            f"use: {_LAUNCH.format(processes=processes)}"
        )
    return accelerator


@contextmanager
def _announced_waiting(processes: int) -> Iterator[None]:
    """Say what is awaited, where joining the other processes takes long."""
    hint = leftover_hint()
    line = f"{console.WORKLOAD}: waits for the other processes"
    notice = threading.Timer(
        _NOTICE_SECONDS,
        lambda: print(f"{line}; {hint}" if hint else line, file=sys.stderr, flush=True),
    )
    notice.daemon = True
    if processes > 1 and prints_problems():
        notice.start()
    try:
        yield
    finally:
        notice.cancel()


def _until_asked_to_end(events: Iterable[Event]) -> Generator[Event, None, None]:
    """Yield the events until a signal has asked this process to end.

    A KeyboardInterrupt inside a callback, or inside another module's bare `except`, is lost; the
    imports of an optimizer contain such places. It is then raised again at the next event.
    """
    for event in events:
        if how := asked_to_end():
            raise KeyboardInterrupt(how)
        yield event


def _report(events: Iterable[Event], recipe: Recipe, target: float) -> bool:
    """Print a line per epoch, then whether the target was reached.

    Returns:
        Whether the training went to its end; False when it diverged.
    """
    reached: int | None = None
    evaluations: list[Evaluated] = []
    line = ""
    for event in events:
        match event:
            case EpochTrained():
                if not math.isfinite(event.loss):
                    console.complain(
                        f"training diverged in epoch {event.epoch}: its loss is {event.loss}"
                    )
                    return False
                line = f"epoch {event.epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}"
                line += f"  loss {event.loss:.4f}"
                if not recipe.evaluates_after(event.epoch):
                    console.print_from_main(line)
            case Evaluated():
                evaluations.append(event)
                line += f"  accuracy {100 * event.accuracy:.2f} %"
                if event.accuracy >= target:
                    line += "  reaches the target"
                    reached = reached or event.epoch
                console.print_from_main(line)
    console.print_from_main(_outcome(evaluations, target, reached))
    return True


def _outcome(evaluations: Sequence[Evaluated], target: float, reached: int | None) -> str:
    final, best = evaluations[-1], max(evaluations, key=lambda event: event.correct)
    head = f"{100 * target:g} % "
    if reached is None:
        head += f"not reached: at best {100 * best.accuracy:.2f} % at epoch {best.epoch}"
    else:
        head += f"reached at epoch {reached}"
    return f"{head}; final accuracy {100 * final.accuracy:.2f} %"
