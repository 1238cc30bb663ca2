"""Random faults: who, of what, when, in which command. A seed says which."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.faults.harness import RUN, Fault, Seen, general_violations, late, provoke

_TWO = ("--processes", "2")


@dataclass(frozen=True, slots=True)
class Moment:
    """A call at which something may happen."""

    where: str
    """Module and attribute."""
    drawn: int
    """Largest number of a call that is drawn: what a seed means must not change."""
    calls: tuple[int, int]
    """Calls by rank 0: in a benchmark, and in each run besides."""
    other_calls: tuple[int, int]
    """The same by another rank."""

    def happens(self, rank: int, runs: int, nth: int) -> bool:
        """Whether there is such a call."""
        once, each = self.other_calls if rank else self.calls
        return nth <= once + each * runs


_ONCE, _EACH_RUN, _NEVER = (1, 0), (0, 1), (0, 0)
_MOMENTS = (
    Moment("bench.measure.plan:resolve_plan", 1, _ONCE, _ONCE),
    Moment("bench.measure.accelerator:join", 1, _ONCE, _ONCE),
    Moment("mnist_cnn.data.dataset:load", 3, _ONCE, _ONCE),
    Moment("bench.machine.environment:describe_environment", 1, _ONCE, _ONCE),
    Moment("bench.machine.calibration:measure_calibration", 1, _ONCE, _ONCE),
    Moment("bench.measure.warmup:repeat_warm_up", 1, _ONCE, _ONCE),
    Moment("bench.measure.runner:_compose", 4, (0, 2), _EACH_RUN),
    Moment("bench.measure.observer:_Observer.__init__", 2, _EACH_RUN, _EACH_RUN),
    Moment("bench.measure.observer:_Observer._lap", 10, (0, 5), (0, 5)),
    Moment("bench.measure.observer:_Observer._trained", 6, (0, 3), (0, 3)),
    Moment("bench.measure.observer:_Observer._evaluated", 2, _EACH_RUN, _EACH_RUN),
    Moment("bench.measure.runner:slowest_laps", 2, _EACH_RUN, _EACH_RUN),
    Moment("bench.machine.meter:Meter.start", 2, _EACH_RUN, _EACH_RUN),
    Moment("bench.machine.meter:Meter.stop", 2, _EACH_RUN, _EACH_RUN),
    Moment("bench.measure.plan_chain:PlanChain.write_plan", 1, _ONCE, _NEVER),
    Moment("bench.records.store:save_record", 2, _EACH_RUN, _NEVER),
    Moment("mnist_cnn.disk:write_beside", 4, (3, 1), _ONCE),
    Moment("mnist_cnn.disk:rename_to_new", 3, (3, 1), _NEVER),
    Moment("bench.launch.local_run:_keep", 2, _EACH_RUN, _EACH_RUN),
    Moment("bench.cli.output:print_runs", 1, _ONCE, _NEVER),
)
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


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a seed says."""

    options: tuple[str, ...]
    processes: int
    runs: int
    moment: Moment
    action: str
    rank: int
    nth: int

    @property
    def is_possible(self) -> bool:
        """Whether the command makes this call in that rank."""
        return self.moment.happens(self.rank, self.runs, self.nth)

    @property
    def asks(self) -> bool:
        """Whether it asks for the end, as a user does: by a signal."""
        return any(word in self.action for word in _ASKING)


_ASKING = ("SIGINT", "SIGTERM", "SIGHUP")


def draw(seed: int) -> Drawn:
    """What happens, where and when."""
    choose = random.Random(seed)
    processes = choose.choice((1, 1, 2))
    runs = choose.choice((1, 2))
    options = ("--runs", str(runs), *(_TWO if processes == 2 else ()))
    if choose.random() < 0.2:
        options += ("--quiet",)
    moment = choose.choice(_MOMENTS)
    action = choose.choice(_OWN if choose.random() < 0.8 else _OF_PARENT)
    if choose.random() < 0.3 and not action.startswith("raise"):
        action = f"later:{action}"
    rank, nth = choose.randrange(processes), choose.randint(1, moment.drawn)
    return Drawn(options, processes, runs, moment, action, rank, nth)


def random_fault(seed: int) -> Fault:
    """The fault of a seed."""
    drawn = draw(seed)
    what = f"{drawn.action} at {drawn.moment.where}, {drawn.nth}"
    return Fault(
        name=f"seed {seed}: rank {drawn.rank} of {drawn.processes}, {drawn.runs} runs, {what}",
        command=("mnist-bench", *RUN, *drawn.options),
        injected=(f"{drawn.rank}|{drawn.moment.where}|{drawn.nth}|{drawn.action}",),
    )


def campaign_violations(seed: int, seen: Seen) -> list[str]:
    """Which promises were broken by the fault of a seed."""
    drawn = draw(seed)
    found = general_violations(seen) + seen.left + seen.problems + late(random_fault(seed), seen)
    if "Traceback" in seen.err:
        found.append("a traceback")
    killed_outside = -9  # the process that was started is the fault's own victim
    if seen.code not in (0, 1, 2, 130, killed_outside):
        found.append(f"exit status {seen.code}")
    complete = [record for record in seen.records if record.status == "completed"]
    is_whole = len(complete) == drawn.runs == len(seen.records)
    if seen.code == 0 and not is_whole:
        found.append("exit status 0 without complete runs")
    if seen.code == 1 and is_whole and "mnist-bench: error:" not in seen.err:
        found.append("exit status 1 with complete runs, and not a word")
    if seen.code == 130 and not drawn.asks and "KeyboardInterrupt" not in drawn.action:
        found.append("exit status 130 although nobody asked for the end")
    if seen.code in (1, 2) and drawn.asks and seen.has_happened:
        found.append(f"exit status {seen.code} although somebody asked for the end")
    return found + _wrong_reasons(drawn, seen)


def _wrong_reasons(drawn: Drawn, seen: Seen) -> list[str]:
    """Reasons of records that name another cause than what happened."""
    expected = _reason(drawn)
    return [
        f"the reason is {record.reason!r}"
        for record in seen.records
        if record.status == "failed" and not re.search(expected, record.reason or "")
    ]


def _reason(drawn: Drawn) -> str:
    """Regular expression for the reason of a run that failed."""
    kind, _, value = drawn.action.removeprefix("later:").partition("=")
    who = f"rank {drawn.rank} " if drawn.processes > 1 else ""
    if kind == "parent":
        return "the process that started|was ended by SIGKILL" if value == "SIGKILL" else value
    if kind == "signal":
        return f"{who}was ended by {value}|{value}"
    if kind == "exit":
        return f"ended with status {value}"
    # What is raised below the run's own work may be told as what it has prevented.
    return "boom|out of memory|SystemExit|several|[Nn]o space|KeyboardInterrupt"


def run_campaign(minutes: float, first_seed: int) -> int:
    """Provoke random faults for some time, two at once.

    Returns:
        The number of faults that broke a promise.
    """
    end = time.monotonic() + 60 * minutes
    broken = count = silent = 0

    def seeds() -> Iterator[int]:
        seed = first_seed
        while time.monotonic() < end:
            if draw(seed).is_possible:
                yield seed
            seed += 1

    def one(seed: int) -> tuple[int, Seen, list[str]]:
        seen = provoke(random_fault(seed))
        return seed, seen, campaign_violations(seed, seen)

    source, seed = seeds(), first_seed
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(one, seed) for _, seed in zip(range(2), source, strict=False)]
        while waiting:
            seed, seen, found = waiting.pop(0).result()
            if (following := next(source, None)) is not None:
                waiting.append(pool.submit(one, following))
            # What a process that ended before did not do is no fault; the rest is checked still.
            count += seen.has_happened
            silent += not seen.has_happened
            broken += bool(found)
            if found:
                print(f"{random_fault(seed).name}: {'; '.join(found)}")
                print("   ", seen.err[-700:].replace("\n", "\n    "))
                sys.stdout.flush()
    seeds_of = f"seeds {first_seed} to {seed}"
    print(f"{count} faults, {seeds_of}: {broken} broke a promise; {silent} more did not happen")
    return broken
