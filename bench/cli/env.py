"""`mnist-bench env`: what this machine is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import text
from bench.records import sidecars
from bench.records.sidecars import PeakFlops
from bench.records.store import RESULTS_DIR, machine_name
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import RECIPES, TRAIN_IMAGES

if TYPE_CHECKING:
    from bench.records.schema import Environment
    from mnist_cnn.recipe import Precision

_MEMORY_SUFFIX = "_bytes"


def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    peak: Annotated[
        bool,
        typer.Option("--peak", help="Measure how fast it multiplies matrices, for some seconds."),
    ] = False,
    save: Annotated[
        bool,
        typer.Option(
            "--save", help="With --peak: keep it beside this machine's records, for reports."
        ),
    ] = False,
    results_dir: Annotated[
        Path, typer.Option(help="With --save: where this machine's records are.")
    ] = RESULTS_DIR,
) -> None:
    """Print what this machine is, and what a run would choose here."""
    if save and not peak:
        raise UsageError("--save keeps what --peak measures: name both")
    # torch is needed from here on.
    from bench.machine.environment import describe_environment, device_name
    from bench.measure import plan

    device = plan.choose_device("auto")
    precisions = {
        name: plan.choose_precision("auto", recipe, device) for name, recipe in RECIPES.items()
    }
    chosen: dict[str, object] = {
        "device": device,
        "threads": plan.choose_threads(None),
        "precision": precisions,
        "kernels": {
            name: plan.choose_kernels("auto", device, precision, RECIPES[name])
            for name, precision in precisions.items()
        },
    }
    environment = describe_environment(device, device_name(device))
    if peak:
        ceilings = _ceilings(environment, device, sorted(set(precisions.values())))
        chosen["peak"] = _peaks(ceilings)
        if save:
            folder = results_dir / machine_name(environment)
            chosen["saved"] = [str(sidecars.write_sidecar(one, folder)) for one in ceilings]
    if as_json:
        print(json.dumps({**chosen, "environment": environment.model_dump()}, indent=2))
        return
    for title, value in described({**chosen, **_named(environment)}):
        print(f"{title:<18} {value}")


def _ceilings(
    environment: Environment, device: str, precisions: list[Precision]
) -> list[PeakFlops]:
    """How fast the device multiplies in each precision."""
    from bench.machine.peak_flops import measure_peak
    from bench.measure import plan

    threads = plan.choose_threads(None)
    ceilings = []
    for precision in precisions:
        best = measure_peak(device, precision, threads)
        ceilings.append(
            PeakFlops(
                device=device,
                device_name=environment.device_name,
                precision=precision,
                threads=threads if device == "cpu" else None,
                flops_per_second=best.flops_per_second,
                side=best.side,
                measured_at=datetime.now(UTC),
                commit=environment.commit,
                torch=environment.torch,
            )
        )
    return ceilings


def _peaks(ceilings: list[PeakFlops]) -> dict[str, object]:
    """Peak GFLOP/s by precision, and the seconds an epoch takes at least at the highest."""
    least = TRAIN_IMAGES * sidecars.TRAINING_FLOPS / max(one.flops_per_second for one in ceilings)
    rates = {f"{one.precision}_gflops": round(one.flops_per_second / 1e9, 1) for one in ceilings}
    return {**rates, "least_epoch_seconds": round(least, 4)}


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
            return text.MISSING
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith(_MEMORY_SUFFIX):
            return text.memory(value)
        case dict():
            return ", ".join(f"{key} {item}" for key, item in value.items()) or text.MISSING
        case list():
            return ", ".join(map(str, value)) or text.MISSING
        case _:
            return text.printable(str(value))
