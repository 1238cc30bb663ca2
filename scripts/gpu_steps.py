"""The steps of scripts/gpu: what is run, for how long at most, and what its records must say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDS = Path("results", "local")
VARIANTS = RECORDS / "gpu-variants"
LOGS = Path("scratch", "gpu")
VERIFY_SECONDS = 10
"""Limit of the last step; the others leave it this time."""

LOOK = """
import importlib, json
missing = []
for package, module in {
    "accelerate": "accelerate", "annotated-types": "annotated_types", "archspec": "archspec",
    "filelock": "filelock", "hypothesis": "hypothesis", "numpy": "numpy", "nvidia-ml-py": "pynvml",
    "pillow": "PIL", "platformdirs": "platformdirs", "psutil": "psutil",
    "pydantic-core": "pydantic_core", "pydantic": "pydantic", "pytest": "pytest",
    "pytest-timeout": "pytest_timeout", "pytest-xdist": "xdist", "rich": "rich",
    "safetensors": "safetensors", "torch": "torch", "torchvision": "torchvision",
    "triton": "triton", "typer": "typer", "typing-extensions": "typing_extensions",
    "typing-inspection": "typing_inspection",
}.items():
    try:
        importlib.import_module(module)
    except ImportError:
        missing.append(package)
facts = {"missing": missing, "gpus": 0, "no_cluster": "there is no GPU"}
if not missing:
    import torch
    from mnist_cnn.kernels import cluster
    facts["gpus"] = torch.cuda.device_count()
    if facts["gpus"]:
        facts["no_cluster"] = cluster.missing_hardware_reason()
print(json.dumps(facts))
"""
"""Program that imports what is needed, and prints in JSON what is missing and what the GPU has."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command with a limit."""

    name: str
    """Name of the step and of its log."""
    group: str
    """Name by which it is asked for together with others."""
    seconds: int
    """Limit of its time."""
    command: tuple[str, ...]
    """Arguments of Python."""
    _: KW_ONLY
    under: tuple[str, ...] = ()
    """Program, with its options, that runs Python."""
    is_spare: bool = False
    """Whether it runs only where time is left."""
    needs_clusters: bool = False
    """Whether the GPU needs clusters of blocks."""
    needs_gpus: bool = False
    """Whether it needs several GPUs."""
    variables: dict[str, str] = field(default_factory=dict)
    """Variables of the environment; ``{temporary}`` is a new folder."""
    problem: Callable[[], str | None] = lambda: None
    """What is wrong although the command has succeeded; None if nothing is."""


def look_step() -> Step:
    """Imports what is needed, and asks what the GPU has."""
    return Step("packages", "packages", 20, ("-c", LOOK))


def verify_step(folders: Sequence[Path]) -> Step:
    """Checks what was recorded as a reviewer will."""
    command = ("-m", "bench", "verify", *(folder.as_posix() for folder in folders))
    return Step("verify", "verify", VERIFY_SECONDS, command)


def all_steps(gpus: int) -> tuple[Step, ...]:
    """All steps but the first, which looks at the machine, and the last, which verifies.

    Args:
        gpus: number of GPUs.
    """
    return (*main_steps(), *cluster_spares(), *gain_steps(gpus), *long_steps())


def main_steps() -> tuple[Step, ...]:
    """What is always measured, the most valuable first.

    Limits are one and a half times what such a step took on an H200, where one is known.
    """
    a_run, number = ("--recipe", "fast-gpu", "--runs", "1"), (*_CLOSED, "--epochs", "2")
    # Triton has two assemblers; which one compiles for a GPU depends on its version.
    broken = dict.fromkeys(_PTXAS_PATHS, "{temporary}/ptxas")
    broken["TRITON_CACHE_DIR"] = "{temporary}/broken"
    empty = {"TRITON_CACHE_DIR": "{temporary}/cold"}
    return (
        Step("machine", "machine", 25, ("-m", "bench", "env", "--json", "--peak", "--save")),
        # Against torch's operators. Side by side, because it is mostly the processor that compiles.
        Step("tests", "tests", 80, pytest_command(*gpu_tests(of_clusters=False), "-n", "4")),
        Step("fast-gpu", "fast-gpu", 45, official_command(*_FAST_GPU, "--runs", "40")),
        # One image a block: whether it is right, the claim, and where the time goes.
        _cluster("cluster-tests", 45, pytest_command(*gpu_tests(of_clusters=True), "-s")),
        _cluster("cluster", 45, official_command(*_CLUSTER, "--runs", "20")),
        _cluster("cluster-profile", 20, profile_command("cluster", *_CLUSTER)),
        # Images a second do not depend on the number of epochs: as on CPUs, not all twenty.
        Step("device-number", "numbers", 40, official_command(*number, "--kernels", "torch")),
        Step("code-number", "numbers", 45, official_command(*number, "--precision", "bf16")),
        Step(
            *("fallback", "fallback", 25, variant_command("broken assembler", *a_run)),
            variables=broken,
            problem=missing_fallback,
        ),
        # First runs, with an empty cache of compiled kernels and with a full one. They come after
        # fast-gpu: where the GPU has another chip, that has searched and kept launch parameters.
        Step("cold", "first", 30, variant_command("cold", *a_run), variables=empty),
        Step("cold-cached", "first", 20, variant_command("cold-cached", *a_run), variables=empty),
        # A run of fast-gpu is too short for a GPU's counter: the same steps, 16 times as many.
        Step(
            *("energy", "energy", 30),
            variant_command("energy", *_FAST_GPU, "--epochs", "448", "--runs", "3"),
            problem=missing_joules,
        ),
    )


def cluster_spares() -> tuple[Step, ...]:
    """What else there is to know of one image a block."""
    longer = variant_command("cluster energy", *_CLUSTER, "--epochs", "432", "--runs", "3")
    by_torch = ("--recipe", "fast", "--kernels", "torch", "--runs", "5")
    return (
        replace(_cluster("cluster-energy", 35, longer), is_spare=True),
        replace(_gain("fast-by-torch", 30, *by_torch), group="cluster"),
    )


def gain_steps(gpus: int) -> tuple[Step, ...]:
    """What each part gains, each in its own process: the kernels, the capture, several GPUs.

    Args:
        gpus: number of GPUs.
    """
    by_torch = (*_FAST_GPU, "--kernels", "torch")
    joined = (*by_torch, "--no-capture", "--runs", "5", "--processes", str(gpus))
    one_a_gpu = (*_FAST_GPU, "--runs", "40", "--parallel-seeds", "auto")
    return (
        Step("profile", "gains", 25, profile_command("trace", *_FAST_GPU), is_spare=True),
        _gain("graphed", 30, *by_torch, "--runs", "5"),
        _gain("eager", 35, *by_torch, "--no-capture", "--runs", "3"),
        _gain("four-at-a-time", 35, *_FAST_GPU, "--runs", "8", "--parallel-seeds", "4"),
        _gain("inductor", 75, *_FAST_GPU, "--kernels", "inductor", "--runs", "3"),
        # To compare with docs/scaling.md.
        replace(_gain("joined", 40, *joined), group="gpus", needs_gpus=True),
        replace(_gain("one-a-gpu", 40, *one_a_gpu), group="gpus", needs_gpus=True),
    )


def long_steps() -> tuple[Step, ...]:
    """Whole runs of the closed division, a row of its own among the results; and races."""
    fp32, bf16 = ("--kernels", "torch"), ("--precision", "bf16")
    checked = pytest_command(*gpu_tests(of_clusters=True), "-k", "step")
    races = replace(_cluster("races", 100, checked), is_spare=True, under=_RACECHECK)
    return (
        Step("closed-fp32", "closed", 170, official_command(*_CLOSED, *fp32), is_spare=True),
        Step("closed-bf16", "closed", 200, official_command(*_CLOSED, *bf16), is_spare=True),
        races,
    )


_HAS_MARKER = re.compile(r"^(@|    |pytestmark = )pytest\.mark\.gpu\b", re.MULTILINE)
_FAST_GPU = ("--recipe", "fast-gpu")
_CLUSTER = ("--recipe", "fast", "--kernels", "cluster")
_CLOSED = ("--recipe", "reference", "--pipeline", "resident", "--runs", "3")
_PTXAS_PATHS = ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH")
_RACECHECK = (
    *("compute-sanitizer", "--tool", "racecheck", "--error-exitcode", "1"),
    *("--kernel-name", "kernel_substring=train_step"),
)


def _cluster(name: str, seconds: int, command: tuple[str, ...]) -> Step:
    return Step(name, "cluster", seconds, command, needs_clusters=True)


def _gain(name: str, seconds: int, *options: str) -> Step:
    command = variant_command(name.replace("-", " "), *options)
    return Step(name, "gains", seconds, command, is_spare=True)


def gpu_tests(*, of_clusters: bool) -> list[str]:
    """Test modules with the marker `gpu`; others may need packages that are not here.

    Args:
        of_clusters: whether those of the kernels with clusters, or all others.
    """
    marked = [
        file.relative_to(ROOT)
        for file in (ROOT / "tests").rglob("test_*.py")
        if _HAS_MARKER.search(file.read_text("utf-8"))
    ]
    return sorted(file.as_posix() for file in marked if ("cluster" in file.parts) is of_clusters)


def pytest_command(*words: str) -> tuple[str, ...]:
    """Pytest, for tests that need a GPU."""
    return ("-m", "pytest", "-v", "-m", "gpu", "-rs", "--durations=10", *words)


def official_command(*options: str) -> tuple[str, ...]:
    """A benchmark that stands for the machine."""
    return _bench(RECORDS, *options)


def variant_command(label: str, *options: str) -> tuple[str, ...]:
    """An experiment."""
    return _bench(VARIANTS, *options, "--label", label)


def profile_command(name: str, *options: str) -> tuple[str, ...]:
    """A trace of some steps."""
    trace = (LOGS / f"{name}.json.gz").as_posix()
    return ("bench/run.py", *options, "--device", "cuda", "--profile", trace)


def _bench(folder: Path, *options: str) -> tuple[str, ...]:
    # A record holds its command: so the folder of the records has no absolute path.
    words = ("--device", "cuda", "--results-dir", folder.as_posix(), "--quiet")
    return ("-W", "ignore", "bench/run.py", *options, *words)


# What the records must say


def missing_fallback() -> str | None:
    """What is wrong with the newest record of the broken assembler."""
    for record in _newest_first("broken assembler"):
        setup = record["setup"]
        failed = [fallback["kernels"] for fallback in setup.get("fallbacks") or ()]
        if set(failed) == {"triton"} and setup["kernels"] == "torch":
            return None
        return f"the record says that {setup['kernels']} trained, and that these failed: {failed}"
    return "there is no record"


def missing_joules() -> str | None:
    """Why the newest record of a long run has no energy."""
    for record in _newest_first("energy"):
        device = record["energy"]["device"]
        return None if device["joules"] is not None else f"no joules: {device['source']}"
    return "there is no record"


def _newest_first(label: str) -> Iterator[dict[str, Any]]:
    """The experiments of that label."""
    files = sorted(VARIANTS.glob("*/*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        record = json.loads(file.read_text())
        if record.get("label") == label:
            yield record
