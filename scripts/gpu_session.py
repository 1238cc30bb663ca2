r"""Runs what needs a GPU, offline, in less than eight minutes.

    scripts/gpu DATA_FOLDER [OUTPUT_FOLDER [STEP...]]

DATA_FOLDER holds MNIST's four files, gzipped or not, there or in MNIST/raw as torchvision has them.
OUTPUT_FOLDER (default: scratch/gpu) gets two files, which every step renews:

    records.tar.gz  all records and logs; unpack it in a checkout: tar -xzf records.tar.gz
    steps.txt       the steps, how long each took, and what came of it

Records go to results/local, as of any run: results/local/<machine> has what stands for the machine
(publish it, docs/contributing-results.md), results/local/gpu-variants the experiments. Logs and
profiles go to scratch/gpu. Every record has the machine's identity, calibration and parity. Start
from a clean commit, on a GPU that nobody else uses.

Each step has a limit, at which it is interrupted and the next one starts. The limits of all steps
but the spare ones are at most 480 s together. A spare step starts where its whole limit is left of
these 480 s. With names of steps, or of groups of them, only those run:

    scripts/gpu DATA_FOLDER OUTPUT_FOLDER cluster
    scripts/gpu DATA_FOLDER OUTPUT_FOLDER races closed-fp32

On a GPU with another chip than an H100 or H200, ask for `first` only after fast-gpu: the first
benchmark there searches launch parameters, with the cache of compiled kernels that is to be empty.

The exit status is 1 if a step failed, or if one that is no spare one came to its limit.

Packages that the machine's Python lacks can travel as wheels, in a folder that WHEELS names; they
are unpacked for this call only. Where Python 3.12 on x86-64 has PyTorch, Triton and pytest but
no pydantic, they have 3 MB:

    python3 -m pip download --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest scratch/carry/wheels pydantic platformdirs archspec
    mkdir -p scratch/carry/mnist
    for file in MNIST_FOLDER/*ubyte; do
        gzip -c "$file" >"scratch/carry/mnist/$(basename "$file").gz"
    done
    PYTHON=python3 WHEELS=scratch/carry/wheels scripts/gpu scratch/carry/mnist OUTPUT_FOLDER

MNIST has 55 MB, gzipped 12 MB: with a checkout (20 MB with its history), only the gzipped files
stay below 64 MiB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from types import FrameType
from typing import IO, Any, cast

from gpu_steps import (
    LOGS,
    RECORDS,
    ROOT,
    VARIANTS,
    VERIFY_SECONDS,
    Step,
    all_steps,
    look_step,
    verify_step,
)

TOTAL_SECONDS = 480
"""Time of the whole call."""
GRACE_SECONDS = 5
"""Last part of a limit: time between an interrupt and the end by force."""
LARGEST_BYTES = 4 << 20
"""Size of a log or profile from which on it stays out of the archive."""
ARCHIVE = "records.tar.gz"
LINES_SHOWN = 12
"""Number of last lines of a log that are shown."""
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
BROKEN_PTXAS = """#!/bin/sh
case "$*" in
*--version*) echo "Cuda compilation tools, release 12.8, V12.8.93" ;;
*) echo "scripts/gpu has no assembler" >&2; exit 1 ;;
esac
"""
"""Stand-in for Triton's assembler that fails. Triton ignores one that has no version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a step."""

    step: Step
    seconds: float
    """Time that it took."""
    text: str
    """What came of it, in words."""
    is_failure: bool = False
    last_line: str = ""
    """Last line of its log."""

    @property
    def line(self) -> str:
        """Its row of the table."""
        return f"{self.step.name:16} {self.seconds:5.0f} of {self.step.seconds:3} s  {self.text}"


class Session:
    """Runs steps one after the other, and keeps what they leave.

    Args:
        output: folder of the archive and of the table.
        temporary: empty folder.
    """

    def __init__(self, output: Path, temporary: Path) -> None:
        """Make the folders."""
        self._output, self._temporary = output, temporary
        self._began, self._began_at = monotonic(), time()
        self._variables = {"PYTHONUNBUFFERED": "1"}
        self.outcomes: list[Outcome] = []
        """What came of the steps so far."""
        output.mkdir(parents=True, exist_ok=True)
        LOGS.mkdir(parents=True, exist_ok=True)

    def seconds_left(self, step: Step) -> float:
        """Time left for a step."""
        kept = 0 if step.name == "verify" else VERIFY_SECONDS
        return TOTAL_SECONDS - kept - (monotonic() - self._began)

    def add_data(self, data: Path) -> None:
        """Unpack MNIST, because a run reads the files on its clock.

        Raises:
            FileNotFoundError: the folder lacks a file.
        """
        folder = self._temporary / "mnist"
        folder.mkdir()
        for name in IDX_FILES:
            with _open_idx_file(data, name) as packed, (folder / name).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        self._variables["MNIST_DATA_DIR"] = str(folder)

    def add_wheels(self, wheels: Path) -> None:
        """Unpack wheels, and have Python find them.

        Raises:
            FileNotFoundError: the folder has none.
        """
        site, files = self._temporary / "site", sorted(wheels.glob("*.whl"))
        if not files:
            raise FileNotFoundError(f"there is no wheel in {wheels}")
        for file in files:
            with zipfile.ZipFile(file) as wheel:
                wheel.extractall(site)
        others = os.environ.get("PYTHONPATH")
        self._variables["PYTHONPATH"] = f"{site}{os.pathsep}{others}" if others else str(site)

    def break_ptxas(self) -> None:
        """Make the stand-in for Triton's assembler."""
        file = self._temporary / "ptxas"
        file.write_text(BROKEN_PTXAS)
        file.chmod(0o755)

    def run(self, step: Step, reason_against: str | None = None) -> Outcome:
        """Run a step, and save everything.

        Args:
            step: what to run.
            reason_against: why not to run it; None to run it.
        """
        limit = min(step.seconds, self.seconds_left(step))
        if reason_against is None and limit <= GRACE_SECONDS:
            reason_against = "no time left"
        if reason_against is not None:
            return self._add(Outcome(step=step, seconds=0, text=f"not run: {reason_against}"))
        print(f"== {step.name}", flush=True)
        begin = monotonic()
        log = LOGS / f"{step.name}.txt"
        try:
            status = self._status(step, log, limit - GRACE_SECONDS)
        except BaseException:  # told to end
            self._add(Outcome(step=step, seconds=monotonic() - begin, text="ended from outside"))
            raise
        text, is_failure = _judged(step, status)
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-LINES_SHOWN:]), flush=True)
        return self._add(
            Outcome(
                step=step,
                seconds=monotonic() - begin,
                text=text,
                is_failure=is_failure,
                last_line=lines[-1] if lines else "",
            )
        )

    def _status(self, step: Step, log: Path, seconds: float) -> int | None:
        """The exit status; None if it was interrupted, at the latest a grace after its time."""
        words = [*step.under, os.environ.get("PYTHON", sys.executable), *step.command]
        variables = {
            name: value.format(temporary=self._temporary) for name, value in step.variables.items()
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._variables | variables,
                start_new_session=True,
            )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)

    def _add(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        self.save()
        return outcome

    def save(self) -> None:
        """Renew the table and the archive."""
        files = [file for file in LOGS.rglob("*") if file.is_file() and self._is_own(file)]
        files = [file for file in files if not file.name.startswith((ARCHIVE, "steps.txt"))]
        large = [file for file in files if file.stat().st_size > LARGEST_BYTES]
        kept = [file for file in files if file not in large]
        for folder in self.record_folders() + self.record_folders(VARIANTS):
            kept += [file for file in folder.rglob("*") if file.is_file()]
        part = self._output / f"{ARCHIVE}.part"
        with tarfile.open(part, "w:gz", compresslevel=6) as archive:
            for file in sorted(kept):
                archive.add(file)
        part.replace(self._output / ARCHIVE)
        notes = [f"too large for the archive: {file}" for file in large]
        lines = [outcome.line for outcome in self.outcomes] + notes
        (self._output / "steps.txt").write_text("\n".join(lines) + "\n")

    def record_folders(self, parent: Path = RECORDS) -> list[Path]:
        """Folders of records in which this call has written, but for those of experiments.

        Args:
            parent: where these folders are.
        """
        folders = sorted(folder for folder in parent.glob("*/") if folder != VARIANTS)
        return [
            folder for folder in folders if any(self._is_own(file) for file in folder.rglob("*"))
        ]

    def _is_own(self, file: Path) -> bool:
        return file.stat().st_mtime > self._began_at - 1


def _open_idx_file(data: Path, name: str) -> IO[bytes]:
    for folder in (data, data / "MNIST" / "raw", data / "raw"):
        if (folder / name).is_file():
            return (folder / name).open("rb")
        if (folder / f"{name}.gz").is_file():
            return cast(IO[bytes], gzip.open(folder / f"{name}.gz", "rb"))
    raise FileNotFoundError(f"there is no {name}, gzipped or not, in {data} or its MNIST/raw")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a step if it still runs, then end what it has left running."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # pytest and runs then save what they have
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS - 1)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _judged(step: Step, status: int | None) -> tuple[str, bool]:
    """What came of a step in words, and whether it is a failure."""
    if status is None:
        return "interrupted at its limit", not step.is_spare
    problem = step.problem() if status == 0 else f"exit status {status}"
    return ("done", False) if problem is None else (f"failed: {problem}", True)


# The command


def main(arguments: Sequence[str]) -> int:
    """Run the steps that were asked for; 1 if one failed, 2 if nothing can be run."""
    request = _parsed(arguments)
    output = (request.output or ROOT / LOGS).resolve()
    data, wheels = request.data.resolve(), os.environ.get("WHEELS")
    wheels_folder = Path(wheels).resolve() if wheels else None
    os.chdir(ROOT)
    _listen_for_signals()
    with tempfile.TemporaryDirectory(prefix="gpu-") as temporary:
        session = Session(output, Path(temporary))
        try:
            session.add_data(data)
            if wheels_folder is not None:
                session.add_wheels(wheels_folder)
        except (OSError, zipfile.BadZipFile) as error:
            return _refuse(str(error))
        outcome = session.run(look_step())
        if outcome.is_failure:
            return _refuse("the packages cannot be imported")
        facts = json.loads(outcome.last_line)
        if facts["missing"]:
            names = " ".join(facts["missing"])
            return _refuse(f"missing packages: {names}; --help says how to take them along")
        if not facts["gpus"]:
            return _refuse("there is no GPU")
        try:
            _run_steps(session, request.steps, facts)
        finally:
            session.save()
    print("\n".join(outcome.line for outcome in session.outcomes))
    return int(any(outcome.is_failure for outcome in session.outcomes))


def _run_steps(session: Session, names: Sequence[str], facts: dict[str, Any]) -> None:
    """Run the steps of these names or groups, all if there are none, then verify."""
    session.break_ptxas()
    for step in all_steps(facts["gpus"]):
        if names and step.name not in names and step.group not in names:
            continue
        reason = _reason_against(step, facts)
        is_late = step.is_spare and not names and session.seconds_left(step) < step.seconds
        session.run(step, "no time left" if reason is None and is_late else reason)
    folders = session.record_folders()
    session.run(verify_step(folders), None if folders else "there are no records")


def _reason_against(step: Step, facts: dict[str, Any]) -> str | None:
    """What the machine lacks for a step; None if nothing."""
    if step.needs_clusters and facts["no_cluster"] is not None:
        return str(facts["no_cluster"])
    if step.needs_gpus and facts["gpus"] < 2:
        return "there is one GPU"
    if step.under and shutil.which(step.under[0]) is None:
        return f"{step.under[0]} is not installed"
    return None


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    steps = [look_step(), *all_steps(2), verify_step([])]
    rows = [
        f"  {step.name:16} {step.group:9} {step.seconds:3} s{', spare' * step.is_spare}"
        for step in steps
    ]
    parser = argparse.ArgumentParser(
        prog="scripts/gpu",
        description=__doc__,
        epilog="\n".join(("steps, their groups and limits, in this order:", *rows)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("output", type=Path, nargs="?", metavar="OUTPUT_FOLDER")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    request = parser.parse_args(arguments)
    known = {name for step in steps[1:-1] for name in (step.name, step.group)}
    for name in request.steps:
        if name not in known:
            parser.error(f"there is no step {name!r}; there are: {', '.join(sorted(known))}")
    return request


def _refuse(reason: str) -> int:
    print(f"scripts/gpu: {reason}", file=sys.stderr)
    return 2


def _listen_for_signals() -> None:
    """End the step and save when told to end; a shell's background job would ignore SIGINT."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for each in numbers:  # so that what is saved now is saved whole
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in numbers:
        signal.signal(each, end)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
