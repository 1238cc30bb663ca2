"""The model without the harness: `python -m mnist_cnn train | predict | summary | export`.

Options without a command mean `train`, so that the original specification's command,
`python -m mnist_cnn --epochs 20 --target-accuracy 99.4`, works as written.
"""

from __future__ import annotations

import sys

from mnist_cnn.first_signals import exit_on_signals

if __name__ == "__main__":
    exit_on_signals("mnist_cnn")  # what follows takes time to import

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from mnist_cnn import console
from mnist_cnn.accuracy import parse_accuracy
from mnist_cnn.errors import InterruptedTrainingError, UsageError
from mnist_cnn.help import HELP_NAMES, HelpfulCommand, examples, one_of
from mnist_cnn.process import EXIT_INTERRUPTED, end_on_signals, ignore_signals, prepare_streams
from mnist_cnn.rank import Rank, exit_process
from mnist_cnn.recipe import RECIPES, REFERENCE, Pipeline, recipe_named, with_overrides
from mnist_cnn.whole_numbers import LARGEST_SEED, MOST_EPOCHS, whole_number

# torch takes seconds to import: each command imports what it needs, `--help` needs none of it.

app = typer.Typer(
    help="Train the 17,506-parameter network and use it. Options without a command mean train.",
    add_completion=False,
    context_settings=HELP_NAMES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(
    cls=HelpfulCommand,
    epilog=examples(
        (
            ("Train the reference recipe.", "python -m mnist_cnn train"),
            (
                "With fewer images, by PyTorch's operators too, and keep the weights.",
                "python -m mnist_cnn train --recipe fast --save model.safetensors",
            ),
        )
    ),
)
def train(
    recipe: Annotated[str, typer.Option(help=f"Recipe: {one_of(RECIPES)}.")] = REFERENCE.name,
    epochs: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_EPOCHS),
            help="Number of epochs; the recipe's schedule is stretched. Of fast an epoch is a "
            "tenth of the images, but a single one is all of them.",
        ),
    ] = None,
    target_accuracy: Annotated[
        str, typer.Option(help="Accuracy to report as reached: 99.4 or 0.994.")
    ] = "99.4",
    seed: Annotated[
        int,
        typer.Option(
            parser=whole_number(LARGEST_SEED), help="Seed of weights, order and distortions."
        ),
    ] = 0,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of MNIST (default: the user's cache folder).", parser=console.parse_path
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="File for the trained weights (safetensors).", parser=console.parse_path),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            help=f"Data pipeline: {one_of(get_args(Pipeline))} (torchvision in a DataLoader, or "
            "all images on the device)."
        ),
    ] = None,
) -> int:
    """Train from random weights and print one line per epoch."""
    # Contiguous: the one layout that is right on every device. This command is not timed.
    chosen = replace(
        with_overrides(recipe_named(recipe), epochs, pipeline), memory_format="contiguous"
    )
    target = parse_accuracy(target_accuracy)
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {seed}")
    file_before = _identity(save)
    try:
        from mnist_cnn.inference.weights import check_writable
        from mnist_cnn.train_command import TrainRequest, run_training

        if save is not None and Rank.from_environment().is_main:
            check_writable(save)
        return run_training(
            TrainRequest(
                recipe=chosen, target_accuracy=target, seed=seed, data_dir=data_dir, save=save
            )
        )
    except KeyboardInterrupt:
        written = "was" if _identity(save) != file_before else "was not"
        fate = "" if save is None else f"; {save} {written} written"
        raise InterruptedTrainingError(f"interrupted{fate}") from None


def _identity(file: Path | None) -> tuple[int, int, int] | None:
    """What is another once a file is replaced; None without a file."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino, status.st_mtime_ns)


@app.command(
    cls=HelpfulCommand,
    epilog=examples(
        (
            ("Which digit is it?", "python -m mnist_cnn predict model.safetensors digit.png"),
            ("Of many.", "python -m mnist_cnn predict model.safetensors scans/*.png"),
        )
    ),
)
def predict(
    model: Annotated[
        Path,
        typer.Argument(help="Weights that train --save has written.", parser=console.parse_path),
    ],
    pictures: Annotated[
        list[Path],
        typer.Argument(help="PNG or JPEG files, one digit in each.", parser=console.parse_path),
    ],
) -> int:
    """Print which digit each picture shows.

    With its probability, or why it cannot be known.
    """
    from mnist_cnn.inference import predict as prediction
    from mnist_cnn.inference.weights import load_weights

    network = load_weights(model)
    status = 0
    for picture in pictures:
        try:
            probabilities = prediction.predict(network, picture)
        except UsageError as error:  # the other pictures may be good
            console.complain(f"error: {error}")
            status = console.EXIT_USAGE
        else:
            print(prediction.chart(str(picture), probabilities, sys.stdout.encoding))
    return status


@app.command(
    cls=HelpfulCommand,
    epilog=examples(
        (
            ("Layers, shapes, multiply-adds.", "python -m mnist_cnn summary"),
            ("The same into a file.", "python -m mnist_cnn summary > layers.txt"),
        )
    ),
)
def summary() -> None:
    """Print the network layer by layer."""
    from mnist_cnn.model import MnistCnn
    from mnist_cnn.summary import FOOTNOTE, layers, table

    print(table(layers(MnistCnn())))
    print(FOOTNOTE)


@app.command(
    cls=HelpfulCommand,
    epilog=examples(
        (
            ("For ONNX Runtime.", "python -m mnist_cnn export model.safetensors --to onnx"),
            (
                "For the Hub, in a folder of its own.",
                "python -m mnist_cnn export model.safetensors --to safetensors --output digits",
            ),
        )
    ),
)
def export(
    model: Annotated[
        Path,
        typer.Argument(help="Weights that train --save has written.", parser=console.parse_path),
    ],
    to: Annotated[str, typer.Option(help="Format: onnx or safetensors.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="New folder (default: beside the weights, NAME-onnx).",
            metavar="DIR",
            parser=console.parse_path,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of MNIST (default: the user's cache folder).", parser=console.parse_path
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Repository to upload the folder to.", metavar="USER/NAME"),
    ] = None,
) -> int:
    """Write a model file that others can run.

    With a card that has its measured accuracy.
    """
    from mnist_cnn.export_command import ExportRequest, run_export

    return run_export(
        ExportRequest(model=model, to=to, output=output, data_dir=data_dir, repository=push_to_hub)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; without one, this process's.

    Returns:
        The exit status: 0 done, 1 training diverged or saving, exporting or uploading failed, 2 bad
        input, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0].startswith("-") and words[0] not in HELP_NAMES["help_option_names"]:
        words.insert(0, "train")
    return console.run(app, console.WORKLOAD, words or ["--help"])


def _start() -> int:
    """Run this process's command line.

    Returns:
        As `main`.
    """
    prepare_streams()
    try:
        end_on_signals()
        return main()
    except KeyboardInterrupt:  # outside of what `console.run` catches
        console.complain("interrupted")
        return EXIT_INTERRUPTED
    finally:
        ignore_signals()


if __name__ == "__main__":
    exit_process(_start())
