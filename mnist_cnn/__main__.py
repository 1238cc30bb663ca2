"""The model without the harness: `python -m mnist_cnn train | predict | summary | export`.

Options without a command mean `train`, so that the seed's own
`python -m mnist_cnn --epochs 20 --target-accuracy 99.4` works as written.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mnist_cnn import console
from mnist_cnn.accuracy import parse_accuracy
from mnist_cnn.errors import UsageError
from mnist_cnn.events import EpochTrained, Evaluated, Event
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import REFERENCE, Recipe, recipe_named, with_overrides

# torch takes seconds to import: each command imports what it needs, `--help` needs none of it.
if TYPE_CHECKING:
    from accelerate import Accelerator

NAME = "mnist_cnn"

app = typer.Typer(
    help="Train the 17,506-parameter network and use it. Options without a command mean train.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="What to train: fast or reference.")] = REFERENCE.name,
    epochs: Annotated[
        int | None, typer.Option(help="Stretch the recipe's schedule over so many epochs.")
    ] = None,
    target_accuracy: Annotated[
        str, typer.Option(help="Accuracy to look out for: 99.4 or 0.994.")
    ] = "99.4",
    seed: Annotated[int, typer.Option(help="Decides weights, order and distortions.")] = 0,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where MNIST is kept (default: the user's cache folder).")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the trained weights there (safetensors).")
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="loader (torchvision in a DataLoader) or resident (on the device)."),
    ] = None,
) -> int:
    """Train from random weights, one line an epoch."""
    chosen = _chosen(recipe, epochs, pipeline)
    target = parse_accuracy(target_accuracy)
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {seed}")
    if save is not None and Rank.from_environment().is_main:
        from mnist_cnn.inference.weights import check_writable

        check_writable(save)
    try:
        return _train(chosen, target, seed, data_dir, save)
    except KeyboardInterrupt:
        _complain("interrupted" + ("" if save is None else f"; {save} was not written"))
        return console.EXIT_INTERRUPTED


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Weights that train --save has written.")],
    pictures: Annotated[list[Path], typer.Argument(help="PNG or JPEG files, a digit in each.")],
) -> int:
    """Say which digit each picture shows, and how surely."""
    from mnist_cnn.inference import predict as prediction
    from mnist_cnn.inference.weights import load_weights

    network = load_weights(model)
    status = 0
    for picture in pictures:
        try:
            probabilities = prediction.predict(network, picture)
        except UsageError as error:  # the other pictures may still be good
            _complain(f"error: {error}")
            status = console.EXIT_USAGE
        else:
            print(prediction.chart(str(picture), probabilities, sys.stdout.encoding))
    return status


@app.command()
def summary() -> None:
    """Show the network layer by layer."""
    from mnist_cnn.model import MnistCnn
    from mnist_cnn.summary import FOOTNOTE, layers, table

    print(table(layers(MnistCnn())))
    print(FOOTNOTE)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Weights that train --save has written.")],
    to: Annotated[str, typer.Option(help="onnx or safetensors.")],
    output: Annotated[
        Path | None,
        typer.Option(help="A new folder (default: beside the weights, NAME-onnx).", metavar="DIR"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where MNIST is kept (default: the user's cache folder).")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Then upload the folder to this repository.", metavar="USER/NAME"),
    ] = None,
) -> int:
    """Write a model file for others and a card that says how well that file does."""
    from mnist_cnn.data.dataset import load
    from mnist_cnn.inference.export import folder as exporting, hub
    from mnist_cnn.inference.export.evaluation import Disagreement
    from mnist_cnn.inference.weights import load_provenance, load_weights

    wanted = exporting.parse_format(to)
    folder = output or model.with_name(f"{model.stem}-{wanted}")
    exporting.check_new(folder)
    if push_to_hub is not None:
        hub.check_ready(push_to_hub)
    network, provenance = load_weights(model), load_provenance(model)
    data = load(data_dir)
    try:
        done = exporting.export(network, provenance, wanted, folder, data)
    except OSError as error:
        _complain(f"error: cannot write {folder}: {error.strerror or error}")
        return console.EXIT_FAILED
    except Disagreement as error:
        _complain(f"error: {folder} was not written: {error}")
        return console.EXIT_FAILED
    got = done.measured
    print(
        f"{done.model}: {100 * got.accuracy:.2f} % ({got.correct:,} of {got.samples:,} test "
        f"images), run by {done.runtime}"
    )
    if push_to_hub is None:
        return 0
    try:
        print(f"uploaded to {hub.push(folder, push_to_hub)}")
    except hub.UploadFailed as error:
        _complain(f"error: not uploaded: {error}; to try again: hf upload {push_to_hub} {folder}")
        return console.EXIT_FAILED
    return 0


def _chosen(name: str, epochs: int | None, pipeline: str | None) -> Recipe:
    # Contiguous is right on every device, which no other layout is; this command is not timed.
    return replace(with_overrides(recipe_named(name), epochs, pipeline), memory_format="contiguous")


def _train(
    recipe: Recipe, target: float, seed: int, data_dir: Path | None, save: Path | None
) -> int:
    """Train, report and save; the exit status."""
    from mnist_cnn import train as training
    from mnist_cnn.context import TrainingContext
    from mnist_cnn.data.dataset import load
    from mnist_cnn.inference.weights import save_weights

    # Before the ranks meet: a first download may take longer than they wait for each other.
    data = load(data_dir).split(recipe.evaluation_split)
    accelerator = _accelerator()
    try:
        context = TrainingContext(recipe, accelerator)
        model = training.seeded_model(recipe, seed)
        _say(
            f"recipe {recipe.name}: {recipe.epochs} epochs, batch {recipe.batch_size}, "
            f"seed {seed}, on {accelerator.device.type} x {accelerator.num_processes}"
        )
        with (
            closing(training.train(model, context, data, seed)) as events,
            closing(_heeding_ctrl_c(events)) as heeding,
        ):
            if not _report(heeding, recipe, target):
                return console.EXIT_FAILED
        if save is not None and accelerator.is_main_process:
            try:
                save_weights(model, save, _provenance(recipe, target, seed, accelerator).metadata())
            except OSError as error:
                _complain(f"error: cannot write {save}: {error.strerror}")
                return console.EXIT_FAILED
            _say(f"saved {save}")
        return 0
    finally:
        accelerator.end_training()


def _provenance(recipe: Recipe, target: float, seed: int, accelerator: Accelerator) -> Provenance:
    import torch

    return Provenance(
        recipe=recipe.name,
        epochs=recipe.epochs,
        seed=seed,
        target_accuracy=target,
        device=accelerator.device.type,
        processes=accelerator.num_processes,
        torch_version=str(torch.__version__),
    )


def _accelerator() -> Accelerator:
    """The device and the ranks this process was started for.

    Always in fp32 and uncompiled, whatever the user's Accelerate configuration says.

    Raises:
        UsageError: several processes were started that do not know of each other.
    """
    from accelerate import Accelerator

    from mnist_cnn.distributed import process_group

    accelerator = Accelerator(
        mixed_precision="no",
        dynamo_backend="no",
        kwargs_handlers=[process_group()],
    )
    started = Rank.from_environment().world_size
    if accelerator.num_processes != started:
        raise UsageError(
            f"{started} processes were started but each trains alone; without a GPU for each, "
            f"use: ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node {started} "
            "-m mnist_cnn train"
        )
    return accelerator


def _heeding_ctrl_c(events: Iterable[Event]) -> Generator[Event, None, None]:
    """The events, until Ctrl-C.

    A KeyboardInterrupt that falls into a callback or into another module's bare `except` is lost
    (importing what an optimizer needs has such places); then it is raised at the next event.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, note)
    try:
        for event in events:
            if asked:
                raise KeyboardInterrupt
            yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _report(events: Iterable[Event], recipe: Recipe, target: float) -> bool:
    """A line an epoch as it ends, then whether the target was reached; False if it diverged."""
    reached: int | None = None
    evaluated: list[Evaluated] = []
    line = ""
    for event in events:
        match event:
            case EpochTrained():
                if not math.isfinite(event.loss):
                    _complain(f"training diverged in epoch {event.epoch}: its loss is {event.loss}")
                    return False
                line = f"epoch {event.epoch:>{len(str(recipe.epochs))}}/{recipe.epochs}"
                line += f"  loss {event.loss:.4f}"
                if not recipe.evaluates_after(event.epoch):
                    _say(line)
            case Evaluated():
                evaluated.append(event)
                line += f"  accuracy {100 * event.accuracy:.2f} %"
                if event.accuracy >= target:
                    line += "  reaches the target"
                    reached = reached or event.epoch
                _say(line)
    _say(_outcome(evaluated, target, reached))
    return True


def _outcome(evaluated: Sequence[Evaluated], target: float, reached: int | None) -> str:
    final, best = evaluated[-1], max(evaluated, key=lambda event: event.correct)
    head = f"{100 * target:g} % "
    if reached is None:
        head += f"not reached: at best {100 * best.accuracy:.2f} % at epoch {best.epoch}"
    else:
        head += f"reached at epoch {reached}"
    return f"{head}; final accuracy {100 * final.accuracy:.2f} %"


def _say(line: str) -> None:
    if Rank.from_environment().is_main:
        print(line, flush=True)


def _complain(line: str) -> None:
    if Rank.from_environment().is_main:
        print(f"{NAME}: {' '.join(line.split())}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; without one, this process's.

    Returns:
        The exit status: 0 done, 1 training diverged or saving, exporting or uploading failed, 2 bad
        input, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] != "--help"):
        words.insert(0, "train")
    # A file's name may hold what the terminal cannot show; that must not end a command.
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    return console.run(app, NAME, words)


if __name__ == "__main__":
    sys.exit(main())
