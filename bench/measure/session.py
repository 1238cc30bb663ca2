"""One benchmark in this process: agree with the other ranks, set up, measure, close."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine.calibration import measure_calibration
from bench.machine.environment import describe_environment
from bench.machine.meter import Meter
from bench.machine.own_process import seconds_since_start
from bench.machine.repository import NO_CHECKOUT
from bench.measure.accelerator import (
    JoinedAccelerator,
    check_parity,
    join,
    refuse_unusable_device,
)
from bench.measure.clock import DeviceClock
from bench.measure.deadline import waiting_for_ranks
from bench.measure.fallbacks import setup_as_run
from bench.measure.instruments import Instruments, SignalGate
from bench.measure.journal import BenchmarkIdentity, Journal
from bench.measure.lost_rank import explained
from bench.measure.plan import ExecutionPlan, resolve_plan, unbuilt_reason, unsupported_device
from bench.measure.plan_chain import PlanChain, PlannedBenchmark
from bench.measure.progress import RunProgress
from bench.measure.rank_agreement import RankAgreement, describe_code
from bench.measure.redaction import redact_addresses
from bench.measure.request import RunRequest
from bench.measure.resume import count_restarts, open_journal
from bench.measure.run_log import FileRunLog, open_run_log
from bench.measure.runner import BenchmarkSpec, MeasuredRun, protocol_values, run_benchmark
from bench.measure.step_graphs import StepGraphs, prepare_step_graphs
from bench.measure.workload import MnistTraining
from bench.records.record_file import machine_name, record_name_like
from bench.records.schema import (
    Calibration,
    ClockCheck,
    Environment,
    ParityCheck,
    RunRecord,
    Setup,
)
from bench.records.store import check_writable
from mnist_cnn.data.dataset import load
from mnist_cnn.distributed import PROCESS_GROUP_TIMEOUT
from mnist_cnn.engine.checkpoint import Checkpoints
from mnist_cnn.errors import UsageError
from mnist_cnn.failure import redact_paths
from mnist_cnn.model import PARAMETERS
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import WHOLE_STEP_KERNELS
from mnist_cnn.train import NO_CHECKPOINTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """What a command hands to a session: the display, the data and the handling of signals."""

    progress: RunProgress
    fetch_data: Callable[[], dict[str, str]]
    """Gets MNIST where it is missing and returns the SHA-256 of each file."""
    signals: SignalGate
    """Decides when a signal may end the work."""


@dataclass(frozen=True, slots=True)
class Session:
    """A benchmark that is ready to be measured."""

    spec: BenchmarkSpec
    workload: MnistTraining
    instruments: Instruments
    chain: PlanChain | None = None
    """The plan, and what links records to it; None where this process saves no record."""
    log: FileRunLog | None = None
    """What outlives this process; None where nobody would read it."""

    @property
    def earlier(self) -> Sequence[RunRecord]:
        """Records of the runs that an earlier process made, where the benchmark is resumed."""
        return self.spec.journal.earlier if self.spec.journal else ()

    def any_rank(self, condition: bool, run: MeasuredRun) -> bool:
        """Whether a condition holds on any rank; every rank calls this after each run.

        Args:
            condition: whether it holds on this one.
            run: the run that is over; after an error other ranks may be gone.
        """
        if run.error is not None or run.record.setup.processes == 1:
            return condition
        try:
            return self.instruments.clock.across_ranks([float(condition)], "max")[0] > 0
        except RuntimeError:  # a rank is gone: the next run finds out, and its record says so
            return condition

    def runs(self) -> Iterator[MeasuredRun]:
        """Measure the runs that are left, and yield each as soon as it is over."""
        with closing(self.instruments.progress):
            yield from run_benchmark(self.spec, self.workload, self.instruments)


@contextmanager
def open_session(request: RunRequest, frontend: Frontend) -> Iterator[Session]:
    """Set up what a request asks for; every rank calls this.

    Raises:
        UsageError: the request is impossible here, or the ranks do not agree.
    """
    agreement = RankAgreement()
    plan = agreement.require_same(
        "set-up",
        lambda: resolve_plan(request.recipe, request.compute),
        lambda plan: _agreed_facts(plan, request),
    )
    agreement.require_same("data", frontend.fetch_data, lambda files: files)
    timeout_seconds = PROCESS_GROUP_TIMEOUT.total_seconds()
    with refuse_unusable_device(), waiting_for_ranks(timeout_seconds):
        joined = join(plan, agreement.machines)
    joined = joined._replace(setup=_with_parallel_seeds(joined.setup, request))
    journal: Journal | None = None
    try:
        environment = describe_environment(joined.setup.device, joined.setup.device_name)
        journal, checkpoints = _open_journal(request, joined, environment)
        # After it: where there is nothing to resume, no folder is made.
        agreement.require_same("saving", lambda: _check_saving(request, environment), dict)
        session = _make_session(request, frontend, joined, environment, (journal, checkpoints))
        # After all checks: a request that is refused is one line.
        _announce(request, plan, session, frontend.progress)
        yield session
    finally:
        if journal is not None:
            journal.close()
        joined.accelerator.end_training()


def _check_saving(request: RunRequest, environment: Environment) -> dict[str, object]:
    """Check that rank 0 can save the records where they will go.

    Returns:
        Nothing that must be the same on every rank.

    Raises:
        UsageError: it cannot.
    """
    results_dir = request.output.results_dir
    if results_dir is not None and Rank.from_environment().is_main:
        runs = request.protocol.runs
        name = record_name_like(request.recipe.name)
        check_writable(results_dir / machine_name(environment), name=name, files=runs, keep=True)
    return {}


def _announce(
    request: RunRequest, plan: ExecutionPlan, session: Session, progress: RunProgress
) -> None:
    """Say before training what is missing here, and where the records go."""
    if request.share is not None and request.share.index > 0:
        return  # the first of the processes has said it
    environment, setup = session.spec.environment, session.spec.setup()
    for failed in setup.fallbacks:
        progress.announced(f"{failed.computed_by} cannot be used here: {failed.reason}")
    if setup.fallbacks:
        progress.announced(f"{setup.computed_by} trains instead")
    if device := unsupported_device(plan, request.compute):
        progress.announced(f"the CPU trains: {device} devices are not supported")
    if reason := unbuilt_reason(plan, request.compute):
        progress.announced(
            f"PyTorch's operators train, which is slower than compiled code: {reason}"
        )
    reason = environment.commit_unknown_reason
    if reason is not None and reason != NO_CHECKOUT:  # an installed copy has a version instead
        progress.announced(f"the records name no commit: {reason}")
    if request.output.results_dir is not None:
        folder = request.output.results_dir / machine_name(environment)
        progress.announced(f"records go to {folder}")


def _agreed_facts(plan: ExecutionPlan, request: RunRequest) -> dict[str, object]:
    """What must be the same on every rank, with names that the user knows."""
    protocol = asdict(request.protocol)
    return {
        **describe_code(),
        **plan.facts(),
        **{f"protocol.{name}": value for name, value in protocol.items()},
    }


def _with_parallel_seeds(setup: Setup, request: RunRequest) -> Setup:
    """The set-up of the whole benchmark, of which --parallel-seeds gave this process some runs."""
    if request.share is None:
        return setup
    variables = request.share.restore_user_variables(setup.environment)
    update = {"parallel_seeds": request.share.count, "environment": variables}
    return setup.model_copy(update=update)


def _open_journal(
    request: RunRequest, joined: JoinedAccelerator, environment: Environment
) -> tuple[Journal | None, Checkpoints | None]:
    """Open what a later process would resume from; twice None where no checkpoints are saved.

    Raises:
        UsageError: checkpoints are impossible here, or there is nothing to resume.
    """
    if request.checkpoints is None:
        return None, None
    if joined.setup.captured or joined.setup.kernels in WHOLE_STEP_KERNELS:
        raise UsageError(NO_CHECKPOINTS)
    identity = BenchmarkIdentity(
        recipe=joined.recipe.values(),
        protocol=protocol_values(request.protocol),
        seed=request.protocol.first_seed,
        setup=joined.setup,
        environment=environment,
        dataset=load(request.data_dir, offline=True).checksums,
        label=_recorded_label(request),
    )
    return open_journal(request.checkpoints, identity.values(), joined.accelerator)


def _make_session(
    request: RunRequest,
    frontend: Frontend,
    joined: JoinedAccelerator,
    environment: Environment,
    saved_state: tuple[Journal | None, Checkpoints | None],
) -> Session:
    """Make workload, instruments and plan of a benchmark, and check what it is measured with."""
    setup = joined.setup
    journal, checkpoints = saved_state
    clock = DeviceClock(joined.accelerator)
    graphs = prepare_step_graphs(joined, clock, frontend.progress.announced)
    workload = MnistTraining(
        joined.context,
        request.data_dir,
        request.protocol.warmup_images,
        threads=setup.threads,
        graphs=graphs.cache,
        checkpoints=checkpoints,
    )
    checks = _check_machine(joined, clock, request.data_dir, graphs)

    def setup_now() -> Setup:
        return setup_as_run(setup, graphs.cache)

    benchmark_id = _benchmark_id(request, journal)
    chain = _plan_chain(
        request,
        PlannedBenchmark(
            benchmark_id=benchmark_id,
            recipe=joined.recipe,
            request=request,
            setup=setup_now,
            environment=environment,
        ),
    )
    log = open_run_log(request.output, request.share)
    spec = BenchmarkSpec(
        recipe=joined.recipe,
        protocol=request.protocol,
        setup=setup_now,
        environment=environment,
        dataset=lambda: workload.checksums,
        command=[redact_paths(_valid_text(word)) for word in redact_addresses(sys.argv)],
        label=_recorded_label(request),
        startup_seconds=checks.startup_seconds,
        clock=checks.clock,
        parity=checks.parity,
        calibration=checks.calibration,
        all_reduce_seconds=checks.all_reduce_seconds,
        journal=journal,
        restarted=count_restarts(),
        share=request.share,
        benchmark_id=benchmark_id,
        write_plan=None if chain is None else chain.write_plan,
        link=None if chain is None else chain.link,
        log=log,
    )
    return Session(spec, workload, _make_instruments(setup, clock, frontend), chain, log)


def _make_instruments(setup: Setup, clock: DeviceClock, frontend: Frontend) -> Instruments:
    return Instruments(
        clock=clock,
        meter=Meter(setup.device, setup.parallel_seeds),
        progress=frontend.progress,
        signals=frontend.signals,
        explain=explained,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _MachineChecks:
    """What was found of clock, device and machine before the first run; see `RunRecord`."""

    clock: ClockCheck
    parity: ParityCheck | None
    all_reduce_seconds: float | None
    startup_seconds: float
    """From the start of the process to here, without calibration and tuning."""
    calibration: Calibration


def _check_machine(
    joined: JoinedAccelerator,
    clock: DeviceClock,
    data_dir: Path | None,
    graphs: StepGraphs,
) -> _MachineChecks:
    """Check the clock and what will be timed, time an all-reduce, then calibrate.

    Raises:
        UsageError: the device cannot be used, or what it computes or times is wrong.
    """
    setup = joined.setup
    with refuse_unusable_device():
        clock_check = clock.check()
        try:
            parity = check_parity(joined, data_dir, graphs.cache)
        except UsageError as error:
            if graphs.chosen.distrust():
                raise UsageError(
                    f"{error}, or run this again: launch parameters that were found here are used "
                    "no more"
                ) from error
            raise
        all_reduce_seconds = clock.all_reduce_seconds(PARAMETERS)
        # Read first: the calibration is no part of the start-up that a user waits for.
        startup_seconds = seconds_since_start() - graphs.chosen.seconds
        calibration = measure_calibration(setup.device, _calibrating(setup))
    return _MachineChecks(
        clock=clock_check,
        parity=parity,
        all_reduce_seconds=all_reduce_seconds,
        startup_seconds=startup_seconds,
        calibration=calibration,
    )


def _plan_chain(request: RunRequest, planned: PlannedBenchmark) -> PlanChain | None:
    """What writes the plan, in the process that saves the records; None in others."""
    results_dir = request.output.results_dir
    if results_dir is None or not Rank.from_environment().is_main:
        return None
    return PlanChain(planned, results_dir)


def _calibrating(setup: Setup) -> int:
    """Number of processes that calibrate on one machine at the same time."""
    return setup.processes // setup.machines * setup.parallel_seeds


def _benchmark_id(request: RunRequest, journal: Journal | None) -> str:
    """The id that an earlier or a parallel process gave to the benchmark; otherwise a new one."""
    if journal is not None:
        return journal.benchmark_id
    return uuid.uuid4().hex if request.share is None else request.share.benchmark_id


def _recorded_label(request: RunRequest) -> str | None:
    return _valid_text(request.output.label) if request.output.label else None


def _valid_text(word: str) -> str:
    """A word of the command line, without bytes that are not UTF-8: a record is JSON."""
    return os.fsencode(word).decode("utf-8", errors="replace")
