"""Provoke a fault in a real benchmark, and look at everything that it leaves."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from bench.records.schema import RunRecord
from bench.records.store import read_records
from tests.commands import BIN, ROOT, clean_environment
from tests.control_group import NoControlGroupError, control_group, entering, limit
from tests.stand_ins import fault

CASE_VARIABLE = "MNIST_BENCH_TEST_CASE"
"""Variable that all processes of a case inherit, by which those that are left are found."""
RUN = ("run", "--recipe", "fast", "--epochs", "3", "--threads", "1", "--device", "cpu")
ONE = ("mnist-bench", *RUN, "--runs", "1")
TWO = ("mnist-bench", *RUN, "--runs", "2", "--processes", "2")
NOT_POSSIBLE = 77
"""Exit status of a command that could not be prepared here."""
_END_SECONDS = 300.0
"""A hang: far more than any end takes, on a busy machine too."""
_GONE_SECONDS = 60.0
_BUSY_SECONDS = 60.0
"""What a busy machine may take longer than is promised: far less than what waits for its limit."""
DEATH_SECONDS, SILENCE_SECONDS, ANSWER_SECONDS = 15.0, 130.0, 2.0
"""What is promised: the end after a death, after a silence, and the answer to a signal."""
_ERROR = re.compile(r"(mnist-bench|mnist_cnn): error:")
_WORD = re.compile(
    r"^(mnist-bench|mnist_cnn): (?!warning: )|^run \d+ of \d+: failed: ", re.MULTILINE
)
"""Where stderr says that, and why, something has ended."""
_OF_LIBRARIES = ("torchelastic_", "torchinductor_")
"""Temporary folders that torchrun and an import of torchvision leave behind."""
_ANNOUNCED = re.compile(r"^run (\d+) of \d+: seed (\d+)", re.MULTILINE)


class NotPossibleError(Exception):
    """This system does not let this user provoke a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, and what is promised where it happens."""

    name: str
    """What happens, as the table of docs/reliability.md names it."""
    command: tuple[str, ...] = ("mnist-bench", *RUN, "--runs", "2")
    """Words of the command; the results folder is added."""
    saves: bool = True
    """Whether it has a results folder."""
    injected: tuple[str, ...] = ()
    """See `tests/stand_ins/fault/sitecustomize.py`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables; ``{folder}`` is the case's own folder, as in `command`."""
    shell: str = ""
    """Shell commands before it: ``$RESULTS`` is its folder for results, ``$DISK`` another one."""
    namespaces: str = ""
    """Letters of `unshare` for the namespaces of its own in which the shell and it are."""
    around: Callable[[Path], AbstractContextManager[Mapping[str, str]]] | None = None
    """Makes files in the case's folder, or a server; gives variables."""
    made: str = ""
    """What `around` makes, for the table."""
    awaited: str = ""
    """Part of the line of stderr at which `act` is called; empty for none."""
    act: Callable[[psutil.Process], object] | None = None
    """Done to the process that was started, while it runs."""
    code: int = 1
    """Exit status that is promised."""
    statuses: tuple[str, ...] = ()
    """Status of each record, in the order of the runs."""
    kept: tuple[str, ...] = ()
    """Status of each record that the results folder does not take."""
    reason: str = ""
    """Regular expression for the reason of the last record."""
    said: str = ""
    """Regular expression for what stderr says."""
    unsaid: str = ""
    """Regular expression for what neither stderr nor stdout says."""
    printed: str = ""
    """Regular expression for what stdout says."""
    prints: bool = True
    """Whether stdout is there to be printed to."""
    limited: tuple[str, Mapping[str, str]] | None = None
    """Control group of the command: its controller, and the files of its limit."""
    within_seconds: float | None = DEATH_SECONDS
    """From the fault to the end, as promised; None where the work goes on."""
    in_ci: bool = False
    """Whether every run of CI provokes it."""

    @property
    def how(self) -> str:
        """How it is provoked, for the table."""
        if self.injected:
            return "; ".join(_shown_injection(one) for one in ";".join(self.injected).split(";"))
        if self.limited is not None:
            return f"control group: {next(iter(self.limited[1].values()))} of {self.limited[0]}"
        if self.act is not None:
            return f"from outside, at the line `{self.awaited}`"
        if self.made:
            return self.made
        own = {name: text.replace("{folder}", "FOLDER") for name, text in self.environment.items()}
        variables = " ".join(f"{name}={shlex.quote(text)}" for name, text in own.items())
        namespaces = f"unshare -Ur{self.namespaces}" if self.namespaces else ""
        return f"`{self.shell or namespaces or variables}`"

    @property
    def expected(self) -> str:
        """What is promised, for the table."""
        end = (
            f"ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"exit {self.code}"
        )
        records = "records: " + ", ".join(self.statuses) if self.statuses else "no record"
        elsewhere = f"; kept elsewhere: {', '.join(self.kept)}" if self.kept else ""
        return f"{end}; {records}{elsewhere}" if self.saves else end


@dataclass(frozen=True, slots=True)
class Seen:
    """What a fault has left."""

    code: int | None
    """Exit status; minus the signal's number where a signal ended it; None for a hang."""
    out: str
    err: str
    seconds: float
    """From the fault, or the start where none happened, to the end."""
    has_happened: bool
    """Whether the fault that was to be injected, or done from outside, has happened."""
    answer_seconds: float
    """From the fault to the next line of stderr that is the harness's own, or to the end."""
    records: list[RunRecord]
    unsaved: list[RunRecord]
    """Those that the results folder did not take."""
    problems: list[str]
    left: list[str]
    """Processes and files that should be gone."""

    @property
    def announced(self) -> list[int]:
        """The runs that were said to begin."""
        return [int(number) for number, _ in _ANNOUNCED.findall(self.err)]


def _shown_injection(injection: str) -> str:
    """``rank 1: SIGKILL at `repeat_warm_up` (call 1)``."""
    rank, where, nth, action = injection.split("|")
    kind, _, value = action.removeprefix("later:").partition("=")
    what = {"signal": value, "parent": f"{value} to the parent", "sleep": f"a pause of {value} s"}
    name = where.rpartition(":")[2].rpartition(".")[2]
    return f"rank {rank}: {what.get(kind, f'{kind} {value}')} at `{name}` (call {nth})"


def provoke(case: Fault) -> Seen:
    """Run the case's command until nothing of it is left.

    Raises:
        NotPossibleError: this system does not let this user provoke it.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fault-")))
        if case.limited is not None:
            controller, values = case.limited
            try:
                group = stack.enter_context(control_group(controller))
            except NoControlGroupError:
                raise NotPossibleError from None
            limit(group, values)
            case = replace(case, command=(*entering(group), *case.command))
        if case.around is not None:
            variables = stack.enter_context(case.around(folder))
            case = replace(case, environment={**case.environment, **variables})
        seen = _provoke(_in_shell(case), folder)
    if seen.code == NOT_POSSIBLE:
        raise NotPossibleError
    return seen


def _in_shell(case: Fault) -> Fault:
    """The case with a command that prepares what its `shell` and `namespaces` say."""
    if not case.shell and not case.namespaces:
        return case
    words: tuple[str, ...] = (
        "sh",
        "-c",
        f'{case.shell or ":"} || exit {NOT_POSSIBLE}; exec "$@"',
        "sh",
    )
    if case.namespaces:
        unshare = ("unshare", f"-Ur{case.namespaces}")
        possible = shutil.which(unshare[0]) and subprocess.run([*unshare, "true"], check=False)
        if not possible or possible.returncode:
            raise NotPossibleError
        words = (*unshare, *words)
    return replace(case, command=(*words, *case.command))


def violations(case: Fault, seen: Seen) -> list[str]:
    """Which promises were broken."""
    found = late(case, seen)
    if (case.injected or case.act is not None) and not seen.has_happened:
        found.append("the fault did not happen")
    if seen.code != case.code:
        found.append(f"exit status {seen.code}, not {case.code}")
    # torchrun and Accelerate print their own about every rank that fails.
    if "Traceback" in seen.err and case.command[0] not in ("torchrun", "accelerate"):
        found.append("a traceback")
    found += seen.left
    found += seen.problems
    statuses = tuple(record.status.value for record in seen.records)
    if statuses != case.statuses:
        found.append(f"records: {', '.join(statuses) or 'none'}")
    kept = tuple(record.status.value for record in seen.unsaved)
    if kept != case.kept:
        found.append(f"kept elsewhere: {', '.join(kept) or 'none'}")
    found += general_violations(seen)
    if case.prints and seen.records and seen.code != -9 and not seen.out.strip():
        found.append("no table of what was measured")
    if case.reason and not (seen.records and re.search(case.reason, seen.records[-1].reason or "")):
        reason = seen.records[-1].reason if seen.records else None
        found.append(f"the reason is {reason!r}")
    if re.search(r"gloo|GLHF|\.cc:\d", seen.err) and case.command[0] == "mnist-bench":
        found.append("stderr is for nobody")
    if case.unsaid and re.search(case.unsaid, seen.err + seen.out, re.MULTILINE):
        found.append(f"it says {case.unsaid!r}")
    if case.printed and not re.search(case.printed, seen.out, re.MULTILINE):
        found.append(f"stdout does not say {case.printed!r}")
    if case.said and not re.search(case.said, seen.err, re.MULTILINE):
        found.append(f"stderr does not say {case.said!r}")
    return found


def late(case: Fault, seen: Seen) -> list[str]:
    """What took longer than is promised, even for a busy machine."""
    found: list[str] = []
    if not seen.has_happened or case.within_seconds is None:
        return found
    if seen.seconds > case.within_seconds + _BUSY_SECONDS:
        found.append(f"it ended after {seen.seconds:.0f} s, not {case.within_seconds:.0f} s")
    if case.code == 130 and seen.answer_seconds > ANSWER_SECONDS + _BUSY_SECONDS / 3:
        found.append(f"it answered after {seen.answer_seconds:.0f} s")
    return found


def general_violations(seen: Seen) -> list[str]:
    """Promises that hold whatever happens."""
    found = []
    if seen.code is None:
        found.append("a hang")
    errors = [line for line in seen.err.splitlines() if _ERROR.match(line)]
    if len(errors) > 1:
        found.append(f"{len(errors)} lines of errors")
    # `verify` prints what it finds as its result.
    if seen.code in (1, 2) and not _WORD.search(seen.err) and (seen.announced or not seen.out):
        found.append("not a word")
    if seen.code == 130 and errors:
        found.append("an error where somebody asked for the end")
    recorded = {record.run_index for record in (*seen.records, *seen.unsaved)}
    missing = [index for index in seen.announced if index not in recorded]
    if missing:
        found.append(f"no record of run {missing[0]}")
    for record in seen.records:
        text = f"{record.reason or ''}"
        if re.search(r"gloo|GLHF|\.cc:\d|\d+\.\d+\.\d+\.\d+|\x1b", text):
            found.append(f"a reason for nobody: {text!r}")
        if record.status != "completed" and not text:
            found.append("no reason")
    return found


def _provoke(case: Fault, folder: Path) -> Seen:
    results, temporary = folder / "results", folder / "tmp"
    for made in (temporary, folder / "disk"):
        made.mkdir()
    mark = uuid.uuid4().hex
    program, *words = (word.replace("{folder}", str(folder)) for word in case.command)
    if case.saves:
        words += ["--results-dir", str(results)]
    program = shutil.which(program, path=f"{BIN}{os.pathsep}{os.environ['PATH']}") or program
    environment = clean_environment() | fault(*case.injected)
    environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
    environment |= {
        CASE_VARIABLE: mark,
        "FAULT_MOMENT": str(folder / "moment"),
        "CI": "true",
        "TMPDIR": str(temporary),
        "XDG_STATE_HOME": str(folder / "state"),
        "RESULTS": str(results),
        "DISK": str(folder / "disk"),
    }
    environment |= {k: v.replace("{folder}", str(folder)) for k, v in case.environment.items()}
    began = time.monotonic()
    moment: list[float] = []
    with subprocess.Popen(
        [program, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        lines: list[tuple[float, str]] = []
        watch = threading.Thread(target=_watch, args=(case, process, lines, moment))
        output: list[str] = []
        read = threading.Thread(target=lambda: output.append(process.stdout.read()))  # type: ignore[union-attr]
        for thread in (watch, read):
            thread.start()
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_END_SECONDS)
        ended = time.monotonic()
        left = _processes_left(mark)
        if code is None:
            process.kill()
        for thread in (watch, read):
            thread.join()
    found = read_records([results]) if results.is_dir() else None
    known = _in_order(found.records) if found else []
    left += [
        f"left behind: {path.name}"
        for path in temporary.iterdir()
        if not path.name.startswith(_OF_LIBRARIES)
    ]
    if (folder / "moment").exists():
        moment.append(float((folder / "moment").read_text()))
    left += [f"left behind: {path.name}" for path in results.rglob("*.tmp")]
    happened = moment[0] if moment else began
    answers = [at for at, line in lines if at >= happened and line.startswith("mnist-bench: ")]
    return Seen(
        code=code,
        out="".join(output),
        err="".join(line for _, line in lines),
        seconds=ended - happened,
        has_happened=bool(moment),
        answer_seconds=min([*answers, ended]) - happened,
        records=known,
        unsaved=[r for r in _in_order(read_records([folder]).records) if r not in known]
        if case.saves
        else [],
        problems=[f"{p.path.name}: {p.reason}" for p in found.problems] if found else [],
        left=left,
    )


def _in_order(records: Sequence[tuple[Path, RunRecord]]) -> list[RunRecord]:
    return sorted((record for _, record in records), key=lambda record: record.run_index)


def _watch(
    case: Fault,
    process: subprocess.Popen[str],
    lines: list[tuple[float, str]],
    moment: list[float],
) -> None:
    assert process.stderr is not None
    if case.act is not None and not case.awaited:
        moment.append(time.monotonic())
        case.act(psutil.Process(process.pid))
    for line in process.stderr:
        lines.append((time.monotonic(), line))
        if case.act is not None and case.awaited and not moment and case.awaited in line:
            moment.append(time.monotonic())
            case.act(psutil.Process(process.pid))


def _processes_left(mark: str) -> list[str]:
    """Processes of the case that do not end: those that are still saving have some time."""
    deadline = time.monotonic() + _GONE_SECONDS
    while alive := list(_alive(mark)):
        if time.monotonic() > deadline:
            names = [f"an orphan: {' '.join(process.cmdline()[:3])}" for process in alive]
            for process in alive:
                process.kill()
            return names
        time.sleep(0.1)
    return []


def _alive(mark: str) -> Sequence[psutil.Process]:
    alive = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_ours = process.environ().get(CASE_VARIABLE) == mark
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive
