"""`mnist-bench env`: what this machine is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench import notation
from mnist_cnn.recipe import RECIPES

if TYPE_CHECKING:
    from bench.records import Environment
    from mnist_cnn.recipe import Precision

_MEMORY_SUFFIX = "_bytes"


def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    peak: Annotated[
        bool,
        typer.Option("--peak", help="Measure how fast it multiplies matrices, for some seconds."),
    ] = False,
) -> None:
    """Print what this machine is, and what a run would choose here."""
    # torch is needed from here on.
    from bench import launch
    from bench.environment import describe, device_name

    device = launch.choose_device("auto")
    precisions = {
        name: launch.choose_precision("auto", recipe, device) for name, recipe in RECIPES.items()
    }
    choices: dict[str, object] = {
        "device": device,
        "threads": launch.choose_threads(None),
        "precision": precisions,
        "kernels": {
            name: launch.choose_kernels("auto", device, precision, RECIPES[name])
            for name, precision in precisions.items()
        },
    }
    if peak:
        choices["peak"] = _peaks(device, sorted(set(precisions.values())))
    environment = describe(device, device_name(device))
    if as_json:
        print(json.dumps({**choices, "environment": environment.model_dump()}, indent=2))
        return
    for title, text in described({**choices, **_named(environment)}):
        print(f"{title:<18} {text}")


def _peaks(device: str, precisions: list[Precision]) -> dict[str, object]:
    """Peak GFLOP/s by precision, and the seconds an epoch takes at least at the highest."""
    from bench import launch
    from bench.peak import measure_peak
    from mnist_cnn.model import MnistCnn
    from mnist_cnn.recipe import TRAIN_IMAGES
    from mnist_cnn.summary import training_flops

    rates = {
        precision: measure_peak(device, precision, launch.choose_threads(None)).flops_per_second
        for precision in precisions
    }
    least = TRAIN_IMAGES * training_flops(MnistCnn()) / max(rates.values())
    gigaflops = {f"{name}_gflops": round(rate / 1e9, 1) for name, rate in rates.items()}
    return {**gigaflops, "least_epoch_seconds": round(least, 4)}


def described(values: dict[str, object]) -> list[tuple[str, str]]:
    """Each value with its name, as people read them."""
    return [
        (name.removesuffix(_MEMORY_SUFFIX).replace("_", " "), _text(name, value))
        for name, value in values.items()
    ]


def _named(environment: Environment) -> dict[str, object]:
    return {name: getattr(environment, name) for name in type(environment).model_fields}


def _text(name: str, value: object) -> str:
    match value:
        case None:
            return notation.ABSENT
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith(_MEMORY_SUFFIX):
            return notation.memory(value)
        case dict():
            return ", ".join(f"{key} {item}" for key, item in value.items()) or notation.ABSENT
        case list():
            return ", ".join(map(str, value)) or notation.ABSENT
        case _:
            return notation.inert(str(value))
