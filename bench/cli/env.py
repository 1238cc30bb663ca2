"""`mnist-bench env`: what this machine is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench import text
from bench.measure.request import ComputeRequest
from bench.records import sidecars
from bench.records.folders import LOCAL_DIR
from bench.records.machine_key import MachineKey
from bench.records.schema import Gpu, Processor
from bench.records.sidecars import PeakFlops
from bench.records.store import machine_name
from bench.text import printable
from mnist_cnn.console import parse_path
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import RECIPES, TRAIN_IMAGES, Kernels, Precision

_MEMORY_SUFFIX = "_bytes"
EXAMPLES = (
    ("What is this machine, and what would a run choose on it?", "mnist-bench env"),
    ("The rate of its matrix products, kept beside its records.", "mnist-bench env --peak --save"),
)


def env(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the machine and the choices as JSON.")
    ] = False,
    peak: Annotated[
        bool,
        typer.Option(
            "--peak", help="Also measure, for some seconds, how fast it multiplies matrices."
        ),
    ] = False,
    save: Annotated[
        bool,
        typer.Option("--save", help="With --peak: save the result beside this machine's records."),
    ] = False,
    results_dir: Annotated[
        Path, typer.Option(help="With --save: folder for the records.", parser=parse_path)
    ] = LOCAL_DIR,
) -> None:
    """Print what this machine is, and what a run would choose on it."""
    if save and not peak:
        raise UsageError("--save saves what --peak measures: give both")
    # Lazy: torch is slow to import, and no other command needs these.
    from bench.machine.environment import describe_environment, device_name
    from bench.machine.package import package_version
    from bench.machine.peak_flops import measure_peaks
    from bench.measure import plan

    device = plan.choose_device("auto")
    threads = plan.choose_threads(None)
    unavailable = _unavailable_reasons()
    try:
        precisions, kernels = _choices(ComputeRequest(), device)
    except UsageError:  # the compiled code is of other source, as `compiled_code` says
        precisions, kernels = _choices(ComputeRequest(kernels="torch"), device)
    values: dict[str, object] = {
        "device": device,
        "threads": threads,
        "precision": precisions,
        "kernels": kernels,
        "compiled_code": unavailable,
        "version": package_version(),
    }
    environment = describe_environment(device, device_name(device))
    values["machine"] = {
        "key": MachineKey.of(environment).label,
        "folder": machine_name(environment),
    }
    if peak:
        peaks = measure_peaks(device, sorted(set(precisions.values())), threads, environment)
        values["peak"] = _peak_rates(peaks)
        if save:
            folder = results_dir / machine_name(environment)
            values["saved"] = [str(sidecars.write_sidecar(peak, folder)) for peak in peaks]
    if as_json:
        print(json.dumps({**values, "environment": environment.model_dump()}, indent=2))
        return
    values["compiled_code"] = _readable_reasons(unavailable)
    for name, value in readable_values({**values, **dict(environment)}):
        print(f"{name:<18} {printable(str(value))}")


def _peak_rates(peaks: Sequence[PeakFlops]) -> dict[str, object]:
    """GFLOP/s in each precision, and the shortest possible time of an epoch at the highest rate."""
    highest = max(peak.flops_per_second for peak in peaks)
    rates = {f"{peak.precision}_gflops": round(peak.flops_per_second / 1e9, 1) for peak in peaks}
    seconds = TRAIN_IMAGES * sidecars.TRAINING_FLOPS / highest
    return {**rates, "least_epoch_seconds": round(seconds, 4)}


def _choices(
    compute: ComputeRequest, device: str
) -> tuple[dict[str, Precision], dict[str, Kernels]]:
    """The precision and the kernels of each recipe, by its name.

    Raises:
        UsageError: a run cannot choose.
    """
    # Lazy: they import torch.
    from bench.measure.kernel_choice import choose_kernels
    from bench.measure.precision_choice import choose_precision

    precisions = {
        name: choose_precision(compute, recipe, device) for name, recipe in RECIPES.items()
    }
    kernels = {
        name: choose_kernels(compute.kernels, device, precision, RECIPES[name])
        for name, precision in precisions.items()
    }
    return precisions, kernels


def _unavailable_reasons() -> dict[Kernels, str | None]:
    """Why each kind of compiled code cannot be used here; None where it can."""
    from mnist_cnn.kernels import native  # lazy: it imports torch

    reasons: dict[Kernels, str | None] = {}
    for kind in native.KINDS:
        try:
            reasons[kind] = native.unavailable_reason(kind)
        except UsageError as error:  # only a run that would use it has to end
            reasons[kind] = str(error)
    return reasons


def _readable_reasons(unavailable: Mapping[Kernels, str | None]) -> str:
    """``"usable: avx512; amx: this processor has no AMX-BF16"``: each reason once, of all kinds."""
    kinds_by_reason: dict[str, list[str]] = {}
    for kind, reason in unavailable.items():
        kinds_by_reason.setdefault(reason or "", []).append(kind)
    usable = kinds_by_reason.pop("", [])
    parts = [f"usable: {', '.join(usable)}"] if usable else []
    parts += [f"{', '.join(kinds)}: {reason}" for reason, kinds in kinds_by_reason.items()]
    return "; ".join(parts)


def readable_values(values: dict[str, object]) -> list[tuple[str, str]]:
    """Names and values as people read them."""
    return [
        (name.removesuffix(_MEMORY_SUFFIX).replace("_", " "), _readable_value(name, value))
        for name, value in values.items()
    ]


def _readable_value(name: str, value: object) -> str:
    match value:
        case None:
            return text.MISSING
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith(_MEMORY_SUFFIX):
            return text.memory(value)
        case Processor():
            return _readable_processor(value)
        case Gpu():
            return _readable_gpu(value)
        case dict():
            known = (f"{key} {item}" for key, item in value.items() if item is not None)
            return text.printable(", ".join(known)) or text.MISSING
        case list():
            return ", ".join(map(str, value)) or text.MISSING
        case _:
            return text.printable(str(value))


def _readable_processor(processor: Processor) -> str:
    """``"AuthenticAMD, family 26, model 2, stepping 1, zen5, L3 32.0 MiB, 2 cores"``."""
    values = (
        ("{}", processor.vendor),
        ("family {}", processor.family),
        ("model {}", processor.model),
        ("stepping {}", processor.stepping),
        ("{}", processor.microarchitecture),
        *((f"{level} {{}}", text.memory(size)) for level, size in processor.cache_bytes.items()),
        ("{} cores", " + ".join(str(kind.cores) for kind in processor.core_classes) or None),
        ("from {:.0f} MHz", processor.min_mhz),
        ("up to {:.0f} MHz", processor.max_mhz),
    )
    return _joined(values)


def _readable_gpu(gpu: Gpu) -> str:
    """``"compute capability 9.0, 132 multiprocessors, power limit 700 W"``."""
    return _joined(
        (
            ("compute capability {}", gpu.compute_capability),
            ("{} multiprocessors", gpu.multiprocessors),
            ("power limit {:.0f} W", gpu.power_limit_watts),
            ("memory clock up to {} MHz", gpu.max_memory_clock_mhz),
            ("clock up to {} MHz", gpu.max_sm_clock_mhz),
        )
    )


def _joined(values: Iterable[tuple[str, object]]) -> str:
    """Wordings filled with their values, without those whose value is None."""
    filled = (wording.format(value) for wording, value in values if value is not None)
    return text.printable(", ".join(filled)) or text.MISSING
