"""Records to test the reading code with: plausible numbers, no run behind them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings, strategies as st

from bench.analysis.case_comparison import compare_case
from bench.analysis.cases import match_cases
from bench.analysis.comparison import Comparison
from bench.analysis.run_sets import RunSet
from bench.records import store
from bench.records.benchmark_plan import BenchmarkPlan, SeedsRule
from bench.records.schema import Evaluation, LapKind, RunRecord, Status, first_reached
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.recipe import FAST

TRAINING = Provenance("fast", 24, 7, 0.994, "cpu", 2, "2.15.0+cpu")
"""How a network was trained, where nobody trained it."""

# No test may fail because the machine is busy.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_EVALUATED = 10_000
_STARTED = datetime(2025, 11, 3, 9, 30, tzinfo=UTC)


def make_record(
    *,
    accuracies: Sequence[float] = (0.9712, 0.9871, 0.9899, 0.9921, 0.9941, 0.9946),
    init_seconds: float = 0.4,
    train_seconds: float = 6.5,
    eval_seconds: float = 0.6,
    samples: int = 60_000,
    **overrides: Any,
) -> RunRecord:
    """A valid record of a run of `fast`.

    Args:
        accuracies: one an epoch, as evaluated on 10,000 images.
        init_seconds: of the one init lap, which starts the run's clock.
        train_seconds: of each train lap.
        eval_seconds: of each eval lap.
        samples: training images an epoch.
        overrides: fields of the record; a dict changes only what it names of a field that is one.
    """
    evaluations = [
        {
            "epoch": epoch,
            "samples": _EVALUATED,
            "correct": round(accuracy * _EVALUATED),
            "loss": 0.02,
            "samples_seen": epoch * samples,
        }
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    values: dict[str, Any] = {
        "run_id": uuid.uuid4().hex,
        "benchmark_id": "b" * 32,
        "run_index": 1,
        "started_at": _STARTED,
        "status": Status.COMPLETED,
        "reason": None,
        "label": None,
        "command": ["mnist-bench", "run"],
        "division": "open",
        "seed": 0,
        "protocol": _PROTOCOL,
        "recipe": FAST.with_epochs(max(1, len(accuracies))).values(),
        "setup": _SETUP,
        "laps": _laps(len(accuracies), init_seconds, train_seconds, eval_seconds),
        "epochs": [
            {"epoch": epoch, "steps": -(-samples // 128), "samples": samples, "loss": 0.5 / epoch}
            for epoch in range(1, len(accuracies) + 1)
        ],
        "evaluations": evaluations,
        "peak_memory": {"bytes": 812 * 1024**2, "source": "the largest resident set"},
        "load": _LOAD,
        "dataset": {"train-images-idx3-ubyte": "ba89" * 16},
        "environment": _ENVIRONMENT,
    }
    for field, value in overrides.items():
        partial = isinstance(value, dict) and isinstance(values.get(field), dict)
        values[field] = {**values[field], **value} if partial else value
    for field, value in _derived(values).items():
        values.setdefault(field, value)
    return RunRecord.model_validate(values)


def make_plan(**changes: Any) -> BenchmarkPlan:
    """A valid plan of a benchmark, with these values in place of its own."""
    record = make_record()
    values: dict[str, Any] = {
        "benchmark_id": record.benchmark_id,
        "written_at": record.started_at,
        "recipe": record.recipe,
        "protocol": record.protocol,
        "seeds_rule": SeedsRule.FROM_ZERO,
        "first_seed": 0,
        "setup": record.setup,
        "machine": None,
        "commit": None,
        "dirty": None,
        "source_sha256": None,
        "previous_plan_sha256": None,
        "previous_record_sha256": None,
    }
    return BenchmarkPlan(**values | changes)


def make_benchmark(
    seconds: Sequence[float] = (6.4, 6.5, 6.7),
    **overrides: Any,
) -> list[RunRecord]:
    """The runs of one benchmark, one for each number of seconds an epoch trains."""
    benchmark_id = uuid.uuid4().hex
    protocol = {"runs": len(seconds), **overrides.pop("protocol", {})}
    return [
        make_record(
            benchmark_id=benchmark_id,
            run_index=index,
            seed=index - 1,
            started_at=_STARTED + timedelta(minutes=index),
            train_seconds=train_seconds,
            protocol=protocol,
            **overrides,
        )
        for index, train_seconds in enumerate(seconds, start=1)
    ]


_ACCURACIES = (0.9712, 0.9871, 0.9899, 0.9921, 0.9941)


def busy(runs: Sequence[RunRecord], number: int) -> list[RunRecord]:
    """The same runs, the first of them beside other work that took half of two cores."""
    load = runs[0].load.model_copy(
        update={"elapsed_seconds": 10.0, "own_seconds": 9.0, "busy_seconds": 19.0}
    )
    return [
        run.model_copy(update={"load": load}) if index < number else run
        for index, run in enumerate(runs)
    ]


def noisy_runs(
    seed: int,
    count: int = 8,
    slower: float = 1.0,
    spread: float = 0.01,
    accuracy: float = 0.9945,
    loss: float = 1.0,
    **overrides: Any,
) -> list[RunRecord]:
    """A benchmark whose epochs train 6.5 s but for noise, and whose accuracy scatters a little."""
    generator = random.Random(seed)
    records = []
    for record in make_benchmark(
        [6.5 * slower * generator.lognormvariate(0, spread) for _ in range(count)], **overrides
    ):
        final = round(accuracy + generator.gauss(0, 0.0002), 4)
        fresh = make_record(accuracies=(*_ACCURACIES, final))
        epochs = [
            {**e.model_dump(), "loss": loss * (e.loss or 1) * generator.lognormvariate(0, 0.01)}
            for e in record.epochs
        ]
        values = record.model_dump() | {
            "evaluations": fresh.model_dump()["evaluations"],
            "final_accuracy": fresh.final_accuracy,
            "target_reached_epoch": first_reached(
                fresh.evaluations, record.protocol.target_accuracy
            ),
            "epochs": epochs,
            # One benchmark after the other: not by turns.
            "started_at": record.started_at + timedelta(hours=seed),
        }
        records.append(RunRecord.model_validate(values))
    return records


def reached_nothing(record: RunRecord) -> RunRecord:
    """The same run, had every evaluation been half a point lower."""
    lower = [{**e.model_dump(), "correct": e.correct - 50} for e in record.evaluations]
    values = record.model_dump() | {"evaluations": lower, "target_reached_epoch": None}
    values["final_accuracy"] = lower[-1]["correct"] / lower[-1]["samples"]
    return RunRecord.model_validate(values)


def compared(
    base: Sequence[RunRecord], new: Sequence[RunRecord], comparisons: int = 1
) -> Comparison:
    """Two sides of one case, compared."""
    (case,) = match_cases(RunSet("base", tuple(base)), RunSet("new", tuple(new))).cases
    return compare_case(case, comparisons)


def saved(path: Path, records: Sequence[RunRecord]) -> str:
    """The records as files of a folder, which is made; its name."""
    for record in records:
        store.save_record(record, path)
    return str(path)


def records() -> st.SearchStrategy[RunRecord]:
    """Records of any content that the schema admits, the text as hostile as it comes."""
    spans = st.floats(0, 1e6)
    return st.builds(
        make_record,
        accuracies=st.lists(st.integers(0, 10_000).map(lambda right: right / 10_000), max_size=4),
        init_seconds=spans,
        train_seconds=spans,
        eval_seconds=spans,
        run_id=st.uuids().map(lambda run_id: run_id.hex),
        started_at=st.datetimes(timezones=st.just(UTC)),
        status=st.sampled_from(Status),
        reason=st.none() | st.text(),
        label=st.none() | st.text(),
        command=st.lists(st.text(), max_size=3),
        seed=st.integers(0, 2**64),
        recipe=st.dictionaries(st.text(max_size=5), _JSON_VALUES, max_size=3),
        setup=st.fixed_dictionaries({"device_name": st.text()}),
        peak_memory=st.fixed_dictionaries({"bytes": st.none() | st.integers(1, 2**50)}),
    )


_JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def _derived(values: dict[str, Any]) -> dict[str, Any]:
    evaluations = [Evaluation.model_validate(value) for value in values["evaluations"]]
    target = values["protocol"]["target_accuracy"]
    return {
        "samples_seen": sum(epoch["samples"] for epoch in values["epochs"]),
        "target_reached_epoch": first_reached(evaluations, target),
        "final_accuracy": evaluations[-1].accuracy if evaluations else None,
    }


def _laps(
    epochs: int, init_seconds: float, train_seconds: float, eval_seconds: float
) -> list[dict[str, Any]]:
    """Start-up and warm-up before the clock starts, then init, and each epoch's two."""
    laps: list[dict[str, Any]] = [
        {"kind": LapKind.STARTUP, "start_seconds": -7.5, "seconds": 4.5},
        {"kind": LapKind.WARMUP, "start_seconds": -3.0, "seconds": 3.0},
    ]
    now = 0.0
    spans: list[tuple[LapKind, int | None, float]] = [(LapKind.INIT, None, init_seconds)]
    for epoch in range(1, epochs + 1):
        spans += [(LapKind.TRAIN, epoch, train_seconds), (LapKind.EVAL, epoch, eval_seconds)]
    for kind, epoch_of_lap, seconds in spans:
        laps.append({"kind": kind, "epoch": epoch_of_lap, "start_seconds": now, "seconds": seconds})
        now += seconds
    return laps


def gpu_state(**overrides: Any) -> dict[str, Any]:
    """A GPU at one moment: warm, at its full clock, with nobody else on it."""
    return {
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "temperature_celsius": 41,
        "power_watts": 312.5,
        "utilization": 0.87,
        "memory_used_bytes": 3 * 1024**3,
        "throttle_reasons": [],
        "other_processes": 0,
        "others_memory_bytes": 0,
        "refused": {},
        **overrides,
    }


def monitoring(
    throttled_seconds: dict[str, float] | None = None,
    cpu_throttle_events: int | None = 0,
    **after: Any,
) -> dict[str, Any]:
    """What was seen of a GPU around a run; `after` is what its state was then."""
    return {
        "gpus": [
            {
                "before": gpu_state(),
                "after": gpu_state(**after),
                "throttled_seconds": throttled_seconds,
                "source": "a test",
            }
        ],
        "gpus_source": "NVML",
        "cpu_mhz_before": 2600.0,
        "cpu_mhz_after": 2600.0,
        "cpu_throttle_events": cpu_throttle_events,
        "cpu_throttle_source": "a test",
    }


ZEN_4: dict[str, Any] = {
    "vendor": "AuthenticAMD",
    "family": 25,
    "model": 17,
    "stepping": 1,
    "microarchitecture": "zen4",
    "cache_bytes": {"L1d": 32 * 1024, "L2": 1024**2, "L3": 32 * 1024**2},
    "core_classes": [{"cores": 2, "max_mhz": None}],
    "min_mhz": None,
    "max_mhz": None,
}
"""A processor that calls itself "AMD EPYC"."""
ZEN_5: dict[str, Any] = ZEN_4 | {
    "family": 26,
    "model": 2,
    "microarchitecture": "zen5",
    "cache_bytes": {"L1d": 48 * 1024, "L2": 1024**2, "L3": 32 * 1024**2},
}
"""Another one that calls itself "AMD EPYC"."""
MONITORING = monitoring()
ENERGY: dict[str, Any] = {
    "device": {"joules": 1234.5, "source": "NVML's total energy of GPU 0"},
    "host": {"joules": 456.0, "source": "RAPL's package-0 (intel-rapl:0)"},
}
_PROTOCOL: dict[str, Any] = {
    "version": 1,
    "target_accuracy": 0.994,
    "runs": 1,
    "warmup_images": 2_560,
    "stop_at_target": False,
}
_SETUP: dict[str, Any] = {
    "device": "cpu",
    "device_name": "AMD EPYC",
    "processes": 1,
    "threads": 2,
    "precision": "bf16",
    "matmul_precision": "highest",
    "memory_format": "channels_last",
    "dynamo_backend": "no",
    "accelerate_config": None,
    "launcher": "python",
    "environment": {"OMP_NUM_THREADS": "2"},
}
_LOAD: dict[str, Any] = {
    "load_average_before": 0.1,
    "load_average_after": 1.9,
    "busy_seconds": 81.0,
    "own_seconds": 80.0,
    "elapsed_seconds": 43.2,
}
_ENVIRONMENT: dict[str, Any] = {
    "device_name": "AMD EPYC",
    "device_memory_bytes": None,
    "cpu": "AMD EPYC",
    "cpu_features": ["avx2", "avx512_bf16"],
    "physical_cores": 2,
    "logical_cores": 2,
    "usable_cores": 2,
    "memory_bytes": 8 * 1024**3,
    "os": "Linux 6.1",
    "virtual_machine": True,
    "python": "3.12.4",
    "driver": None,
    "torch": "2.15.0",
    "torch_build": None,
    "accelerate": "1.15.0",
    "packages": {"numpy": "2.4.6"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
}
