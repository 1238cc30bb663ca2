"""Computes one row of docs/speed.md: a recipe with some values changed, over several seeds.

    .venv/bin/python scripts/tune.py fast epochs=5 weight_decay=3e-4 --seeds 4
    .venv/bin/python scripts/tune.py fast peak_learning_rate=0.4 --against "" --seeds 8

The second line compares with `fast` itself, seed by seed. Runs train on the first 50,000 training
images and evaluate once, after the last epoch, on the other 10,000. The test set is only for
confirmation: --test trains on all 60,000 and evaluates on it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from statistics import fmean
from time import perf_counter
from typing import Annotated, Any

import typer

from bench.measure.accelerator import start_accelerator
from bench.measure.request import ComputeRequest
from bench.stats.summary import summarize
from bench.text import count_of
from mnist_cnn.console import run
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split, load
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.recipe import EvaluationSplit, Recipe, recipe_named
from mnist_cnn.train import seeded_model, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="Recipe to start from.")],
    changes: Annotated[list[str] | None, typer.Argument(help="FIELD=VALUE ...")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs, with seeds 0, 1, ...")] = 4,
    threads: Annotated[int | None, typer.Option(help="Number of threads.")] = None,
    kernels: Annotated[
        str, typer.Option(help="Kernels: auto, torch, or a CPU's instruction set.")
    ] = "auto",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CHANGES",
            help="Also train by the recipe with these changes, such as 'epochs=9 dropout=0.1', and "
            "compare; '' is the recipe itself.",
        ),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Evaluate on the test set.")] = False,
) -> None:
    """Print each seed's accuracy after the last epoch, their mean and its 95 % interval."""
    start = recipe_named(recipe)
    changed = {"new": changes or []}
    if against is not None:
        changed = {"base": against.split(), **changed}
    split: EvaluationSplit = "test" if test else "validation"
    sides = {
        name: _evaluated_once(with_changes(start, words), split) for name, words in changed.items()
    }
    if len({chosen.precision for chosen in sides.values()}) > 1:
        raise UsageError("--against: one process trains in one precision; call this once for each")
    data = load().split(split)
    accuracies: dict[str, list[float]] = {name: [] for name in sides}
    request = ComputeRequest(device="cpu", threads=threads, kernels=kernels)
    for seed in range(seeds):
        for name, chosen in sides.items():
            title = f"seed {seed}" if against is None else f"seed {seed}, {name}"
            accuracies[name].append(_accuracy(chosen, request, data, seed, title))
    for name, values in accuracies.items():
        title = "mean" if against is None else f"{name}: mean"
        print(f"{title} {fmean(values):.3%}{_between(values)}, n = {seeds}")
    if against is not None:
        _print_difference(accuracies["base"], accuracies["new"])


def _print_difference(base: Sequence[float], new: Sequence[float]) -> None:
    """Print the mean difference of runs of the same seed, and its 95 % interval."""
    points = [100 * (after - before) for before, after in zip(base, new, strict=True)]
    summary = summarize(points)
    between = ""
    if summary.low is not None and summary.high is not None:
        between = f" ({summary.low:+.3f} to {summary.high:+.3f})"
    count = count_of(len(points), "pair")
    print(f"new - base: {fmean(points):+.3f} points{between}, {count} of a seed")


def _evaluated_once(recipe: Recipe, split: EvaluationSplit) -> Recipe:
    return replace(recipe, evaluation_split=split, evaluate_from_epoch=recipe.epochs)


def _accuracy(recipe: Recipe, request: ComputeRequest, data: Split, seed: int, title: str) -> float:
    """Train once, print a line that begins with the title, and return the last accuracy."""
    accelerator, chosen, setup, _ = start_accelerator(recipe, request)
    context = TrainingContext(chosen, accelerator, setup.kernels)
    start, seconds, samples, accuracy = perf_counter(), 0.0, 0, 0.0
    for event in train(seeded_model(chosen, seed), context, data, seed):
        match event:
            case EpochTrained():
                seconds = perf_counter() - start
                samples += event.samples
            case Evaluated():
                accuracy = event.accuracy
                print(
                    f"{title}: {accuracy:.2%}, loss {event.loss:.5f}, "
                    f"{samples:,} images in {seconds:.1f} s",
                    flush=True,
                )
    return accuracy


def _between(accuracies: Sequence[float]) -> str:
    summary = summarize(accuracies)
    if summary.low is None or summary.high is None:
        return ""
    return f" ({summary.low:.2%} to {summary.high:.2%})"


def with_changes(recipe: Recipe, changes: list[str]) -> Recipe:
    """The recipe with the named fields changed.

    Raises:
        UsageError: a field is unknown, or its value has another type.
    """
    types = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in types:
            raise UsageError(f"unknown field {name!r}{near_match(name, types)}")
        try:
            values[name] = text == "True" if types[name] is bool else types[name](text)
        except ValueError:
            raise UsageError(f"{change!r}: not a {types[name].__name__}") from None
    return replace(recipe.with_epochs(values.pop("epochs", recipe.epochs)), **values)


if __name__ == "__main__":
    sys.exit(run(app, "tune.py", sys.argv[1:]))
