"""A benchmark's parts put together, and its runs made: behind `mnist-bench run`."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure.interruption import Interruption
from bench.measure.redaction import redact_addresses
from bench.measure.resume import CheckpointRequest, count_restarts, open_journal
from bench.measure.seed_share import SeedShare
from bench.records.protocol import BenchmarkProtocol
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe

if TYPE_CHECKING:
    from bench.measure.journal import Journal
    from bench.measure.progress import RunProgress
    from bench.records.schema import RunRecord


def measure_benchmark(
    recipe: Recipe,
    protocol: BenchmarkProtocol,
    interruption: Interruption,
    *,
    device: str,
    precision: str,
    threads: int | None,
    kernels: str,
    capture: bool | None,
    data_dir: Path | None,
    label: str | None,
    keeping: CheckpointRequest | None,
    earlier: list[tuple[Path | None, RunRecord]],
    share: SeedShare | None,
    progress: RunProgress,
    fetch_data: Callable[[], dict[str, str]],
) -> Generator[tuple[RunRecord, BaseException | None], None, None]:
    """Put workload, clock and display together and yield each run's record as it ends."""
    # From here on torch is needed, and takes its seconds.
    from bench.machine.environment import describe_environment
    from bench.machine.meter import Meter
    from bench.measure import plan
    from bench.measure.accelerator import check_parity, join, setup_as_run, usable_device
    from bench.measure.clock import DeviceClock, seconds_since_process_start
    from bench.measure.journal import run_identity
    from bench.measure.rank_agreement import RankAgreement, describe_code
    from bench.measure.redaction import redact_paths
    from bench.measure.runner import BenchmarkSpec, protocol_values, run_benchmark
    from bench.measure.workload import MnistTraining
    from mnist_cnn.context import TrainingContext
    from mnist_cnn.data.dataset import load
    from mnist_cnn.model import PARAMETERS
    from mnist_cnn.train import NO_CHECKPOINTS

    label = _as_text(label) if label else None
    meeting = RankAgreement()
    chosen = meeting.agree(
        "set-up",
        lambda: plan.resolve_plan(recipe, device, precision, threads, kernels),
        lambda chosen: {
            **describe_code(),
            **chosen.facts(),
            "capture": capture,
            **{f"protocol.{name}": value for name, value in asdict(protocol).items()},
        },
    )
    meeting.agree("data", fetch_data, lambda files: files)
    with usable_device():
        accelerator, fitted, setup = join(chosen, capture=capture, machines=meeting.machines)
    if share is not None:
        variables = share.as_the_user_set_it(setup.environment)
        setup = setup.model_copy(update={"parallel_seeds": share.count, "environment": variables})
    journal = checkpoints = None
    try:
        environment = describe_environment(setup.device, setup.device_name)
        if keeping is not None:
            if setup.captured or setup.kernels == "triton":
                raise UsageError(NO_CHECKPOINTS)
            who = run_identity(
                fitted.values(),
                protocol_values(protocol),
                protocol.first_seed,
                setup,
                environment,
                load(data_dir, offline=True).checksums,
                label,
            )
            journal, checkpoints = open_journal(keeping, who, accelerator)
            earlier += [(None, record) for record in journal.earlier]
        workload = MnistTraining(
            TrainingContext(fitted, accelerator, setup.kernels),
            data_dir,
            protocol.warmup_images,
            captured=setup.captured,
            checkpoints=checkpoints,
        )
        clock = DeviceClock(accelerator)
        with usable_device():
            checked = clock.check()
            checked_parity = check_parity(fitted, accelerator, data_dir, setup)
            all_reduce_seconds = clock.all_reduce_seconds(PARAMETERS)
        benchmark = BenchmarkSpec(
            recipe=fitted,
            protocol=protocol,
            setup=lambda: setup_as_run(setup, workload.capture_failure),
            environment=environment,
            dataset=lambda: workload.checksums,
            command=[redact_paths(_as_text(word)) for word in redact_addresses(sys.argv)],
            label=label,
            startup_seconds=seconds_since_process_start(),
            clock=checked,
            parity=checked_parity,
            all_reduce_seconds=all_reduce_seconds,
            journal=journal,
            restarted=count_restarts(),
            share=share,
            benchmark_id=_benchmark_id(journal, share),
        )
        meter = Meter(setup.device, setup.parallel_seeds)
        with closing(progress):
            yield from run_benchmark(benchmark, workload, clock, meter, progress, interruption)
    finally:
        if journal is not None:
            journal.close()
        accelerator.end_training()


def _benchmark_id(journal: Journal | None, share: SeedShare | None) -> str:
    """One of its own, unless other processes have made or make a part of the benchmark."""
    if journal is not None:
        return journal.benchmark_id
    return uuid.uuid4().hex if share is None else share.benchmark_id


def _as_text(word: str) -> str:
    """A word of the command line that a record can hold: some are not text."""
    return os.fsencode(word).decode("utf-8", errors="replace")
