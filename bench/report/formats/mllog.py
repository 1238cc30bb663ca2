"""Runs in MLPerf's log format (mllog), one file per run: for tools that read such logs.

Only the *format* is MLPerf's. The logs are no MLPerf results: nobody submitted or reviewed them,
and MNIST is not a task of that benchmark. Keys and their meaning are those of the package
`mlperf-logging` (`mllog/constants.py`); its compliance checker passes these logs by the rules in
`mlperf_rules/mnist.yaml`.

A log ends where MLPerf's clock stops: at the evaluation that reached the target. A run that missed
the target, or did not complete, ends as aborted. The metadata of `run_stop` says what was trained
after the target.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from bench.analysis.benchmarks import Benchmark
from bench.analysis.metrics import reached_epoch, time_to_target_seconds
from bench.records.schema import LapKind, RunRecord, Status
from bench.records.store import machine_name
from bench.report.formats.tracked import pool_benchmarks, truncate
from bench.text import count_of, printable
from mnist_cnn.recipe import TRAIN_IMAGES, VALIDATION_IMAGES

PREFIX = ":::MLLOG "
RULES = Path(__file__).parent / "mlperf_rules" / "mnist.yaml"
"""The file for `--config` of the compliance checker."""

_LONGEST_TEXT = 200
"""Greatest number of characters of a text in a log."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FP32_PRODUCTS = {"highest": "fp32", "high": "tf32", "medium": "bfloat16"}
"""Lowest precision within fp32 matrix products, by torch.get_float32_matmul_precision()."""
_OFF_THE_CLOCK = (LapKind.STARTUP, LapKind.WARMUP)
"""Laps before MLPerf's clock starts."""
_RECIPE_FIELDS = {
    "global_batch_size": "batch_size",
    "opt_name": "optimizer",
    "opt_base_learning_rate": "peak_learning_rate",
    "opt_weight_decay": "weight_decay",
}
"""Fields of a recipe, by their keys in a log."""


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a log."""

    seconds: float
    """Time since the run's clock started."""
    key: str
    value: JsonValue = None
    metadata: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Logs:
    """A folder of logs."""

    files: dict[PurePosixPath, str]
    """Texts by file name, relative to the folder: the rules, and MLPerf's
    ``<system>/<benchmark>/result_<n>.txt``, whose numbers are those of the runs of a benchmark."""
    left_out: tuple[str, ...]
    """A line for each kind of thing that the logs do not hold: how many, and why."""


def to_mllog(benchmarks: Sequence[Benchmark]) -> Logs:
    """A log of every run, also of failed ones, and the checker's rules beside them."""
    files = {PurePosixPath("rules.yaml"): RULES.read_text(encoding="utf-8")}
    out_of_range = unevaluated = 0
    for benchmark in pool_benchmarks(benchmarks):
        folder = _folder(benchmark, {path.parent for path in files})
        for number, record in enumerate(benchmark.records):
            text = log_of(record)
            if text is None:
                out_of_range += 1
                continue
            files[folder / f"result_{number}.txt"] = text
            unevaluated += not record.evaluations
    left_out = []
    if out_of_range:
        left_out.append(f"{count_of(out_of_range, 'run')} whose times are out of range")
    if unevaluated:
        left_out.append(
            f"any accuracy in {count_of(unevaluated, 'log')} of runs that were never evaluated: "
            "the compliance checker refuses them"
        )
    return Logs(files, tuple(left_out))


def log_of(record: RunRecord) -> str | None:
    """A run's log, in order of time; None when a time is too large for a number."""
    start_ms = (record.started_utc - _EPOCH).total_seconds() * 1000
    events = [*_before(record), *_laps(record), _stop(record)]
    first = min(event.seconds for event in events)
    events = [*(Event(first, key, value) for key, value in _facts(record).items()), *events]
    try:
        timed = [(round(start_ms + event.seconds * 1000), event) for event in events]
    except (OverflowError, ValueError):
        return None
    timed.sort(key=lambda pair: pair[0])
    return "".join(f"{_line(time_ms, event)}\n" for time_ms, event in timed)


def _facts(record: RunRecord) -> dict[str, JsonValue]:
    """What is known before a run starts, by key."""
    recipe, setup = record.recipe, record.setup
    batch = recipe.get("batch_size")
    validated = recipe.get("evaluation_split", "test") != "test"
    precision = _precision(record)
    return {
        "submission_org": "mnist-bench",
        "submission_platform": _text(setup.device_name) or "unknown device",
        "submission_division": record.division,
        "submission_status": "research",
        "submission_benchmark": "mnist",
        "config_filename": _text(recipe.get("name")) or "unnamed recipe",
        # The operating system's caches are not cleared; the checker requires the key.
        "cache_clear": False,
        "seed": record.seed,
        **{key: _text(recipe.get(name)) for key, name in _RECIPE_FIELDS.items()},
        "gradient_accumulation_steps": 1,
        "micro_batch_size": -(-batch // setup.processes) if isinstance(batch, int) else None,
        "train_samples": TRAIN_IMAGES - VALIDATION_IMAGES * validated,
        "eval_samples": record.evaluations[-1].samples if record.evaluations else None,
        "target_accuracy": record.protocol.target_accuracy,
        "lowest_numerical_precision_in_linear": precision,
        # The network has no attention; the checker requires the key.
        "lowest_numerical_precision_in_attn": precision,
        "lowest_numerical_precision_in_comm": "fp32",
        "tensor_parallelism": 1,
        "pipeline_parallelism": 1,
        "context_parallelism": 1,
        "expert_parallelism": 1,
    }


def _precision(record: RunRecord) -> str:
    if record.setup.precision == "fp32":
        return _FP32_PRODUCTS.get(record.setup.matmul_precision, "fp32")
    return {"bf16": "bfloat16", "fp16": "fp16"}[record.setup.precision]


def _before(record: RunRecord) -> list[Event]:
    """Start-up and warm-up, which MLPerf does not time, and the start of the clock."""
    before = [lap.start_seconds for lap in record.laps if lap.kind in _OFF_THE_CLOCK]
    metadata: dict[str, JsonValue] = {
        "run_id": _text(record.run_id),
        "benchmark_id": _text(record.benchmark_id),
        "label": _text(record.label),
        "commit": _text(record.environment.commit),
        "torch": _text(record.environment.torch),
    }
    return [
        Event(min([0.0, *before]), "init_start"),
        Event(0.0, "init_stop"),
        Event(0.0, "run_start", metadata=metadata),
    ]


def _laps(record: RunRecord) -> list[Event]:
    """Epochs and evaluations until the clock stops."""
    last = reached_epoch(record) if _reached(record) else None
    evaluations = {evaluation.epoch: evaluation for evaluation in record.evaluations}
    events = []
    for lap in record.laps:
        key = {LapKind.TRAIN: "epoch", LapKind.EVAL: "eval"}.get(lap.kind)
        if key is None or lap.epoch is None or (last is not None and lap.epoch > last):
            continue
        end = lap.start_seconds + lap.seconds
        metadata: dict[str, JsonValue] = {"epoch_num": lap.epoch}
        evaluation = evaluations.pop(lap.epoch, None) if key == "eval" else None
        if evaluation:
            metadata["samples_count"] = evaluation.samples_seen
        events.append(Event(lap.start_seconds, f"{key}_start", metadata=metadata))
        if evaluation:
            events.append(Event(end, "eval_accuracy", evaluation.accuracy, metadata))
        events.append(Event(end, f"{key}_stop", metadata=metadata))
    return events


def _stop(record: RunRecord) -> Event:
    """The end of the clock, and its reason."""
    metadata: dict[str, JsonValue] = {
        "final_accuracy": record.final_accuracy,
        "epochs_trained": len(record.epochs),
    }
    reached = time_to_target_seconds(record) if _reached(record) else None
    if reached is not None:
        return Event(reached, "run_stop", metadata={"status": "success", **metadata})
    end = max((lap.start_seconds + lap.seconds for lap in record.laps), default=0.0)
    uninterrupted = record.counts or record.status is not Status.COMPLETED
    default = "missed the target" if uninterrupted else f"not made in one go: {record.outcome}"
    reason = _text(record.reason) or default
    return Event(
        max(0.0, end), "run_stop", metadata={"status": "aborted", "reason": reason, **metadata}
    )


def _reached(record: RunRecord) -> bool:
    return record.counts and time_to_target_seconds(record) is not None


def _line(time_ms: int, event: Event) -> str:
    kind = {"start": "INTERVAL_START", "stop": "INTERVAL_END"}.get(event.key.rpartition("_")[2])
    values = {
        "namespace": "",
        "time_ms": time_ms,
        "event_type": kind or "POINT_IN_TIME",
        "key": event.key,
    }
    start = json.dumps(values, allow_nan=False).removesuffix("}")
    metadata = ", ".join(f'"{name}": {_encoded(v)}' for name, v in event.metadata.items())
    return f'{PREFIX}{start}, "value": {_encoded(event.value)}, "metadata": {{{metadata}}}}}'


def _encoded(value: JsonValue) -> str:
    """JSON in ASCII; no text of a record looks like a key or a line of the log in it.

    Readers of such logs search lines for `run_stop` or the prefix before they parse them.
    """
    text = json.dumps(value, allow_nan=False)
    if isinstance(value, int | float | None):
        return text
    return text.replace("_", r"\u005f").replace(":", r"\u003a")


def _text(value: object) -> JsonValue:
    """The value for a log: text on one line of limited length, numbers; null for all else."""
    if isinstance(value, str):
        return truncate(printable(value), _LONGEST_TEXT)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float) else None


def _folder(benchmark: Benchmark, taken: set[PurePosixPath]) -> PurePosixPath:
    """``<system>/<benchmark>``: a name from the date and time, and not yet taken."""
    first = benchmark.runs[0][1]
    name = f"mnist-{first.started_utc:%Y%m%dT%H%M%SZ}"
    system = PurePosixPath(machine_name(first.environment))
    number, folder = 1, system / name
    while folder in taken:
        number += 1
        folder = system / f"{name}-{number}"
    return folder
