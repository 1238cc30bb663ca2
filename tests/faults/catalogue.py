"""The faults that are provoked, and what is promised for each."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator

import psutil

from tests.faults import outside
from tests.faults.harness import ONE, RUN, SILENCE_SECONDS, TWO, Fault

_RESOLVED = "bench.measure.plan:resolve_plan|1"
_JOINING = "bench.measure.accelerator:join|1"
_WARM_UP = "bench.measure.warmup:repeat_warm_up|1"
_SAVING = "bench.records.store:save_record|1"
_RUN_OVER = "bench.measure.runner:slowest_laps|1"
_TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node", "2", "bench/run.py", *RUN[1:])
_EPOCH = "epoch 1 of 3"
_KILLED = "was ended by SIGKILL"


def _trained(nth: int) -> str:
    """Just after the nth epoch; three make a run."""
    return f"bench.measure.observer:_Observer._trained|{nth}"


def _send(number: signal.Signals) -> Callable[[psutil.Process], object]:
    return lambda process: process.send_signal(number)


def _send_child(number: signal.Signals) -> Callable[[psutil.Process], object]:
    return lambda process: process.children()[0].send_signal(number)


def _send_rank(rank: int, number: signal.Signals) -> Callable[[psutil.Process], object]:
    """To a rank of the supervisor, which is the child of the process that was started."""

    def send(process: psutil.Process) -> None:
        ranks = process.children()[0].children()
        of_rank = [p for p in ranks if p.environ().get("RANK") == str(rank)]
        of_rank[0].send_signal(number)

    return send


def catalogue() -> list[Fault]:
    """All faults."""
    return [
        *_alone(),
        *_signals(),
        *_streams(),
        *_memory(),
        *_shortages(),
        *_two_ranks(),
        *_other_launchers(),
        *outside.catalogue(),
    ]


def _alone() -> Iterator[Fault]:
    moments = (
        ("while it looks at the device", _RESOLVED, (), f"{_KILLED}.*before the first run"),
        ("while it joins", _JOINING, (), f"{_KILLED}.*before the first run"),
        ("in the warm-up", _WARM_UP, (), f"{_KILLED}.*before the first run"),
        ("after an epoch", _trained(2), ("failed",), ""),
        ("in the second run", _trained(4), ("completed", "failed"), ""),
        ("while the record is made", _RUN_OVER, ("failed",), ""),
        ("while the record is saved", _SAVING, ("completed",), ""),
    )
    for when, where, statuses, said in moments:
        yield Fault(
            name=f"the process is killed (SIGKILL) {when}",
            injected=(f"0|{where}|signal=SIGKILL",),
            statuses=statuses,
            reason=_KILLED if "failed" in statuses else "",
            said=said or _KILLED,
            in_ci=where == _WARM_UP,
        )
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGQUIT", "SIGXCPU", "SIGUSR1"):
        yield Fault(
            name=f"the process ends by {name} after an epoch",
            injected=(f"0|{_trained(2)}|signal={name}",),
            statuses=("failed",),
            reason=f"was ended by {name}",
        )
    yield Fault(
        name="the process ends by a real-time signal after an epoch",
        injected=(f"0|{_trained(2)}|signal=40",),
        statuses=("failed",),
        reason="was ended by signal 40",
    )
    yield Fault(
        name="an error while the second record is made",
        injected=("0|bench.measure.runner:_compose|4|raise=ValueError('boom')",),
        statuses=("completed", "failed"),
        reason="^failed: ValueError: boom$",
        said="^mnist-bench: error: ValueError: boom$",
    )
    errors = (
        ("ValueError('boom')", "^ValueError: boom"),
        ("MemoryError()", "^out of memory"),
        ("SystemExit(0)", "^SystemExit: 0"),
        ("RuntimeError('a\\nb')", "^RuntimeError: a$"),
    )
    for error, reason in errors:
        yield Fault(
            name=f"{error.partition('(')[0]} in an epoch",
            injected=(f"0|{_trained(2)}|raise={error}",),
            statuses=("failed",),
            reason=reason,
        )
    yield Fault(
        name="the process leaves with status 0 after an epoch",
        injected=(f"0|{_trained(2)}|exit=0",),
        statuses=("failed",),
        reason="ended with status 0 and without a word",
    )
    for error in ("MemoryError()", "ImportError('failed to map segment')", "SystemExit(0)"):
        yield Fault(
            name=f"{error.partition('(')[0]} before the first run",
            injected=(f"0|{_JOINING}|raise={error}",),
            said="^mnist-bench: error: [^\n]*$",
        )


def _signals() -> Iterator[Fault]:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for who, send in (("started", _send(number)), ("that measures", _send_child(number))):
            yield Fault(
                name=f"{number.name} to the process {who}, in a run",
                awaited=_EPOCH,
                act=send,
                code=130,
                statuses=("interrupted",),
                reason=f"^ended by {number.name}",
            )
        yield Fault(
            name=f"{number.name} to the process started, before the first run",
            injected=(f"0|{_JOINING}|parent={number.name};0|{_WARM_UP}|sleep=1",),
            code=130,
            said="^mnist-bench: interrupted while no run was being measured$",
            in_ci=number == signal.SIGINT,
        )
        yield Fault(
            name=f"{number.name} to a process of two, in a run",
            command=TWO,
            awaited=_EPOCH,
            act=_send(number),
            code=130,
            statuses=("interrupted",),
            reason=f"^ended by {number.name}",
            in_ci=number == signal.SIGINT,
        )
    yield Fault(
        name="the parent process is killed (SIGKILL) in a run",
        awaited=_EPOCH,
        act=_send(signal.SIGKILL),
        code=-9,
        statuses=("failed",),
        reason="the process that started this one has died",
        in_ci=True,
    )
    yield Fault(
        name="the parent of two processes is killed (SIGKILL) in a run",
        command=TWO,
        awaited=_EPOCH,
        act=_send(signal.SIGKILL),
        code=-9,
        statuses=("failed",),
        reason="the process that started this one has died",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        yield Fault(
            name=f"{number.name} to runs that are measured at the same time",
            command=("mnist-bench", *RUN, "--epochs", "60", "--runs", "2", "--parallel-seeds", "2"),
            awaited="run 1 of 2: epoch 20 of 60",  # by then the other has begun as well
            act=_send(number),
            code=130,
            statuses=("interrupted", "interrupted"),
            unsaid="no run was being measured",
        )
    nohup = shutil.which("nohup")
    if nohup is not None:
        yield Fault(
            name="SIGHUP under nohup",
            command=(nohup, "mnist-bench", *RUN, "--runs", "2"),
            awaited=_EPOCH,
            act=_send(signal.SIGHUP),
            code=0,
            statuses=("completed", "completed"),
            within_seconds=None,
            in_ci=True,
        )


def _streams() -> Iterator[Fault]:
    for name, redirection, code in (
        ("stderr is closed", "exec 2>&-", 0),
        ("stderr is on a full disk", "exec 2>/dev/full", 0),
        ("all streams are closed", "exec 0<&- 1>&- 2>&-", 0),
        ("stdout is on a full disk", "exec >/dev/full", 1),
    ):
        yield Fault(
            name=name,
            command=ONE,
            shell=redirection,
            code=code,
            statuses=("completed",),
            prints="stderr" in name,
            said="the output could not be written" if code else "",
            in_ci=name == "all streams are closed",
        )


def _memory() -> Iterator[Fault]:
    for kibibytes in (2_000_000, 3_200_000):
        yield Fault(
            name=f"{kibibytes:,} KiB of address space",
            command=(*ONE, "--kernels", "torch"),
            shell=f"ulimit -v {kibibytes}",
            said="^mnist-bench: error: .*(memory|allocate).*$",
        )


def _shortages() -> Iterator[Fault]:
    """What a container or a full disk does."""
    ran_out = f"{_KILLED}: the system was out of memory"
    yield Fault(
        name="memory runs out while the libraries are imported",
        limited=("memory", {"memory.limit_in_bytes": "150M", "memory.max": "150M"}),
        said=f"{ran_out}, before the first run$",
    )
    yield Fault(
        name="memory runs out after an epoch",
        limited=("memory", {"memory.limit_in_bytes": "1500M", "memory.max": "1500M"}),
        injected=(f"0|{_trained(2)}|raise=b'x' * 2 * 10**9",),
        statuses=("failed",),
        reason=f"^the process {ran_out}$",
        in_ci=True,
    )
    yield Fault(
        name="memory runs out in rank 1 of 2 after an epoch",
        command=TWO,
        limited=("memory", {"memory.limit_in_bytes": "3G", "memory.max": "3G"}),
        injected=(f"1|{_trained(2)}|raise=b'x' * 4 * 10**9",),
        statuses=("failed",),
        reason=f"^rank 1 {ran_out}$",
    )
    for most in (1, 3, 6):
        yield Fault(
            name=f"no more than {most} processes and threads, for two ranks",
            command=TWO,
            limited=("pids", {"pids.max": str(most)}),
            said="no (more )?process",
        )
    unlogged = "takes no more, so a process that dies from now on leaves no record"
    for name, options, said in (
        ("the temporary folder has one page", "size=4k", unlogged),
        ("the temporary folder has no room, so that another is taken", "nr_inodes=1", ""),
        (
            "the temporary folder has room for two files",
            "nr_inodes=3",
            "no temporary folder can be written to",
        ),
        ("the temporary folder has no room for a log", "nr_inodes=6", unlogged),
    ):
        code = 2 if said.startswith("no") else 0
        yield Fault(
            name=name,
            command=ONE,
            namespaces="m",
            shell=f"mount -t tmpfs -o {options} tmpfs $TMPDIR",
            code=code,
            statuses=() if code else ("completed",),
            said=said,
            in_ci=options == "nr_inodes=6",
        )


def _two_ranks() -> Iterator[Fault]:
    for rank in (0, 1):
        for when, where, statuses in (
            ("before the ranks meet", _RESOLVED, ()),
            ("while the ranks join", _JOINING, ()),
            ("in the warm-up", _WARM_UP, ()),
            ("after an epoch", _trained(2), ("failed",)),
            ("in the second run", _trained(4), ("completed", "failed")),
            ("while the record is made", _RUN_OVER, ("failed",)),
        ):
            yield Fault(
                name=f"rank {rank} of 2 is killed (SIGKILL) {when}",
                command=TWO,
                injected=(f"{rank}|{where}|signal=SIGKILL",),
                statuses=statuses,
                reason=f"^rank {rank} {_KILLED}" if statuses else "",
                said=f"rank {rank} {_KILLED}",
                in_ci=(rank, where) == (1, _trained(2)),
            )
        yield Fault(
            name=f"an error in rank {rank} of 2",
            command=TWO,
            injected=(f"{rank}|{_trained(2)}|raise=ValueError('boom')",),
            statuses=("failed",),
            reason="^ValueError: boom" if rank == 0 else "^rank 1 failed: ValueError: boom",
            in_ci=rank == 1,
        )
        yield Fault(
            name=f"SystemExit in rank {rank} of 2",
            command=TWO,
            injected=(f"{rank}|{_trained(2)}|raise=SystemExit(0)",),
            statuses=("failed",),
            reason="SystemExit: 0",
        )
        yield Fault(
            name=f"rank {rank} of 2 leaves with status 0",
            command=TWO,
            injected=(f"{rank}|{_trained(2)}|exit=0",),
            statuses=("failed",),
            reason=f"^rank {rank} ended with status 0" if rank else "ended with status 0",
        )
        yield Fault(
            name=f"SIGTERM to rank {rank} of 2",
            command=TWO,
            awaited=_EPOCH,
            act=_send_rank(rank, signal.SIGTERM),
            code=130,
            statuses=("interrupted",),
            reason="ended by SIGTERM",
        )
        yield Fault(
            name=f"rank {rank} of 2 is stopped (SIGSTOP) in a run",
            command=TWO,
            awaited=_EPOCH,
            act=_send_rank(rank, signal.SIGSTOP),
            statuses=("failed",),
            reason=f"^rank {rank} was stopped",
            within_seconds=SILENCE_SECONDS,
        )
        yield Fault(
            name=f"rank {rank} of 2 is stopped (SIGSTOP) while the ranks join",
            command=TWO,
            injected=(f"{rank}|{_JOINING}|signal=SIGSTOP",),
            said=f"rank {rank} was stopped",
            within_seconds=SILENCE_SECONDS,
        )
    yield Fault(
        name="the supervisor of two ranks is killed (SIGKILL)",
        command=TWO,
        awaited=_EPOCH,
        act=_send_child(signal.SIGKILL),
        statuses=("failed",),
        said=f"the supervisor of the ranks {_KILLED}",
    )


def _other_launchers() -> Iterator[Fault]:
    on_cpu = {"ACCELERATE_USE_CPU": "true"}
    for rank in (0, 1):
        yield Fault(
            name=f"rank {rank} of 2 is killed (SIGKILL) under torchrun",
            command=(*_TORCHRUN, "--runs", "2"),
            environment=on_cpu,
            injected=(f"{rank}|{_trained(2)}|signal=SIGKILL",),
            statuses=("failed",),
            reason=f"rank {rank} {_KILLED}",
        )
    yield Fault(
        name="SIGTERM to accelerate launch",
        command=(
            "accelerate",
            "launch",
            "--cpu",
            "--num_processes",
            "1",
            "bench/run.py",
            *RUN[1:],
            "--runs",
            "2",
        ),
        awaited=_EPOCH,
        act=_send(signal.SIGTERM),
        code=-15,
        statuses=("failed",),
        reason="the process that started this one has died",
    )
