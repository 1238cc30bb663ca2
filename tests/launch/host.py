"""A machine that is a network namespace: a network of its own, the disk shared."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.commands import PYTHON, ROOT, clean_environment
from tests.stand_ins import FEW_IMAGES

COMMAND = (PYTHON, ROOT / "bench" / "run.py")
LIMIT_SECONDS = 600
"""Long after which something waits for what will not come."""


class Host:
    """A network namespace, kept by a process that sleeps in it."""

    def __init__(self, keeper: subprocess.Popen[bytes]) -> None:
        self.keeper = keeper
        while Path(f"/proc/{keeper.pid}/comm").read_text() != "sleep\n":
            assert keeper.poll() is None, "no namespace"
            time.sleep(0.01)

    @property
    def enter(self) -> list[str]:
        return ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(self.keeper.pid)]

    def set_up(self, *commands: str) -> None:
        for command in commands:
            subprocess.run([*self.enter, *command.split()], check=True, capture_output=True)

    def start(self, command: Sequence[object], **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.enter, *map(str, command)],
            cwd=ROOT,
            env=clean_environment() | FEW_IMAGES | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def bench(self, *options: object, **environment: str) -> subprocess.Popen[str]:
        return self.start([*COMMAND, *options], **environment)

    def processes(self) -> list[psutil.Process]:
        """All that are on it, besides the one that keeps it."""
        own = Path(f"/proc/{self.keeper.pid}/ns/net").stat().st_ino
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                inside = Path(f"/proc/{process.pid}/ns/net").stat().st_ino == own
                if inside and process.pid != self.keeper.pid:
                    found.append(process)
        return found

    def switch_off(self) -> None:
        """Every process at once, as when the power fails: nobody is told."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.suspend()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def ended(*started: subprocess.Popen[str]) -> list[tuple[int, str, str]]:
    """Status, output and error output of each; none takes longer than the limit."""
    end = time.monotonic() + LIMIT_SECONDS
    late = False
    results: list[tuple[int, str, str]] = []
    for one in started:
        try:
            texts = one.communicate(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
            one.kill()
            texts = one.communicate()
        results.append((one.returncode, *texts))
    assert not late, results
    return results
