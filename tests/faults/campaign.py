"""Random faults: who, of what, when, in which command. A seed says which."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.faults.harness import RUN, Fault, Seen, general_violations, provoke

_TWO = ("--processes", "2")
_MOMENTS = (
    ("bench.measure.plan:resolve_plan", 1),
    ("bench.measure.accelerator:join", 1),
    ("mnist_cnn.data.dataset:load", 3),
    ("bench.machine.environment:describe_environment", 1),
    ("bench.machine.calibration:measure_calibration", 1),
    ("bench.measure.warmup:repeat_warm_up", 1),
    ("bench.measure.runner:_compose", 4),
    ("bench.measure.observer:_Observer.__init__", 2),
    ("bench.measure.observer:_Observer._lap", 10),
    ("bench.measure.observer:_Observer._trained", 6),
    ("bench.measure.observer:_Observer._evaluated", 2),
    ("bench.measure.runner:slowest_laps", 2),
    ("bench.machine.meter:Meter.start", 2),
    ("bench.machine.meter:Meter.stop", 2),
    ("bench.measure.plan_chain:PlanChain.write_plan", 1),
    ("bench.records.store:save_record", 2),
    ("mnist_cnn.disk:write_beside", 4),
    ("mnist_cnn.disk:rename_to_new", 3),
    ("bench.launch.local_run:_keep", 2),
    ("bench.cli.output:print_runs", 1),
)
"""Calls at which something may happen, with the number of calls in two short runs."""
_OWN = (
    *(f"signal={name}" for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGSEGV")),
    *(f"signal={name}" for name in ("SIGABRT", "SIGQUIT", "SIGXCPU", "SIGUSR2", "SIGALRM")),
    "raise=ValueError('boom')",
    "raise=MemoryError()",
    "raise=SystemExit(0)",
    "raise=KeyboardInterrupt()",
    "raise=OSError(28, 'No space left on device')",
    "raise=RuntimeError('several\\nlines')",
    "exit=0",
    "exit=3",
)
_OF_PARENT = ("parent=SIGKILL", "parent=SIGTERM", "parent=SIGINT", "parent=SIGHUP")


def random_fault(seed: int) -> Fault:
    """The fault of a seed."""
    choose = random.Random(seed)
    processes = choose.choice((1, 1, 2))
    runs = choose.choice((1, 2))
    options = ("--runs", str(runs), *(_TWO if processes == 2 else ()))
    if choose.random() < 0.2:
        options += ("--quiet",)
    where, calls = choose.choice(_MOMENTS)
    action = choose.choice(_OWN if choose.random() < 0.8 else _OF_PARENT)
    if choose.random() < 0.3 and not action.startswith("raise"):
        action = f"later:{action}"
    rank, nth = choose.randrange(processes), choose.randint(1, calls)
    return Fault(
        name=f"seed {seed}: rank {rank} of {processes}, {runs} runs, {action} at {where}, {nth}",
        command=("mnist-bench", *RUN, *options),
        injected=(f"{rank}|{where}|{nth}|{action}",),
    )


def campaign_violations(seen: Seen) -> list[str]:
    """Which promises were broken, whatever the fault was."""
    found = general_violations(seen) + seen.left + seen.problems
    if "Traceback" in seen.err:
        found.append("a traceback")
    ok = all(record.status == "completed" for record in seen.records)
    killed_outside = (-9,)  # the process that was started is the fault's own victim
    if seen.code not in (0, 1, 2, 130, *killed_outside):
        found.append(f"exit status {seen.code}")
    if seen.code == 0 and not (ok and seen.records):
        found.append("exit status 0 without complete runs")
    if seen.code in (1, 2) and not seen.err.strip():
        found.append("not a word")
    return found


def run_campaign(minutes: float, first_seed: int) -> int:
    """Provoke random faults for some time, two at once.

    Returns:
        The number of faults that broke a promise.
    """
    end = time.monotonic() + 60 * minutes
    broken = count = 0

    def seeds() -> Iterator[int]:
        seed = first_seed
        while time.monotonic() < end:
            yield seed
            seed += 1

    def one(seed: int) -> tuple[Fault, Seen, list[str]]:
        case = random_fault(seed)
        seen = provoke(case)
        return case, seen, campaign_violations(seen)

    source = seeds()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(one, seed) for _, seed in zip(range(2), source, strict=False)]
        while waiting:
            case, seen, found = waiting.pop(0).result()
            if (seed := next(source, None)) is not None:
                waiting.append(pool.submit(one, seed))
            count += 1
            broken += bool(found)
            if found:
                print(f"{case.name}: {'; '.join(found)}")
                print("   ", seen.err[-700:].replace("\n", "\n    "))
                sys.stdout.flush()
    last_seed = first_seed + count - 1
    print(f"{count} faults, seeds {first_seed} to {last_seed}: {broken} broke a promise")
    return broken
