"""One row of docs/speed.md: a recipe with some values changed, over several seeds.

    .venv/bin/python scripts/tune.py fast epochs=5 weight_decay=3e-4 --seeds 4

Trains on the first 50,000 training images and evaluates, after the last epoch alone, on the other
10,000: the test set is for confirming. With --test, it is that.
"""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from statistics import fmean
from time import perf_counter
from typing import Annotated, Any

import typer

from bench.measure.accelerator import start_accelerator
from bench.measure.request import ComputeRequest
from bench.stats.summary import summarize
from mnist_cnn.console import run
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import load
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.recipe import EvaluationSplit, Recipe, recipe_named
from mnist_cnn.train import seeded_model, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="The recipe to start from.")],
    changes: Annotated[list[str] | None, typer.Argument(help="FIELD=VALUE ...")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...: so many runs.")] = 4,
    threads: Annotated[int | None, typer.Option(help="Of the process.")] = None,
    kernels: Annotated[str, typer.Option(help="auto, torch, avx512 or amx.")] = "auto",
    test: Annotated[bool, typer.Option("--test", help="Confirm on the test set.")] = False,
) -> None:
    """Print each seed's accuracy after the last epoch, their mean and its 95 % interval."""
    chosen = changed(recipe_named(recipe), changes or [])
    split: EvaluationSplit = "test" if test else "validation"
    chosen = replace(chosen, evaluation_split=split, evaluate_from_epoch=chosen.epochs)
    accelerator, chosen, setup = start_accelerator(
        chosen, ComputeRequest(device="cpu", threads=threads, kernels=kernels)
    )
    context = TrainingContext(chosen, accelerator, setup.kernels)
    data = load().split(split)
    accuracies = []
    for seed in range(seeds):
        begin, seconds, samples = perf_counter(), 0.0, 0
        model = seeded_model(chosen, seed)
        for event in train(model, context, data, seed):
            match event:
                case EpochTrained():
                    seconds = perf_counter() - begin
                    samples += event.samples
                case Evaluated():
                    accuracies.append(event.accuracy)
                    print(
                        f"seed {seed}: {event.accuracy:.2%}, loss {event.loss:.5f}, "
                        f"{samples:,} images in {seconds:.1f} s",
                        flush=True,
                    )
    summary = summarize(accuracies)
    interval = ""
    if summary.low is not None and summary.high is not None:
        interval = f" ({summary.low:.2%} to {summary.high:.2%})"
    print(f"mean {fmean(accuracies):.3%}{interval}, n = {len(accuracies)}")


def changed(recipe: Recipe, changes: list[str]) -> Recipe:
    """The recipe with the fields that are named set.

    Raises:
        UsageError: a field is unknown or its value is not one of its type.
    """
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise UsageError(f"unknown field {name!r}{near_match(name, kinds)}")
        try:
            values[name] = text == "True" if kinds[name] is bool else kinds[name](text)
        except ValueError:
            raise UsageError(f"{change!r}: not a {kinds[name].__name__}") from None
    return replace(recipe.with_epochs(values.pop("epochs", recipe.epochs)), **values)


if __name__ == "__main__":
    sys.exit(run(app, "tune.py", sys.argv[1:]))
