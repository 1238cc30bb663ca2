"""What works on Windows, shown without one: what it lacks is taken away from our code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Other packages and the standard library know how to do without; here they are Linux's.
PROGRAM = """
import asyncio, ctypes.util, getpass, logging, multiprocessing, os, selectors, shutil, signal
import socket, subprocess, sys, tempfile
import filelock, numpy, platformdirs, psutil, pydantic, rich.console, typer

for name in ("resource", "fcntl", "termios", "pwd", "grp", "tty", "pty"):
    sys.modules[name] = None
for owner, names in {
    os: "fork getuid geteuid getgid setsid killpg getpgid statvfs mkfifo O_NOFOLLOW O_DIRECTORY "
        "getloadavg sysconf fchmod",
    signal: "SIGHUP SIGCHLD SIGALRM SIGUSR1 SIGUSR2 SIGQUIT SIGPIPE SIGSTOP SIGCONT SIGTSTP "
        "pthread_sigmask sigwait sigpending setitimer alarm pthread_kill",
}.items():
    for name in names.split():
        if hasattr(owner, name):
            delattr(owner, name)
from bench.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--version"], "mnist-bench "),
        (["report", "results/nvidia-h200-16-cores"], "fast-gpu"),
        (["report", "results/nvidia-h200-16-cores", "--to", "csv"], "time_to_target"),
        (
            ["compare", "results/studies/xeon-earlier-version", "results/intel-xeon-2-cores"],
            "fast",
        ),
        (["verify", "results/nvidia-h200-16-cores"], "parameters"),
    ],
)
def test_results_are_read(words: list[str], says: str) -> None:
    done = run(*words)
    assert "Traceback" not in done.stderr
    assert "AttributeError" not in done.stderr
    assert "ModuleNotFoundError" not in done.stderr
    assert says in done.stdout, done.stderr


@pytest.mark.slow
def test_a_benchmark_is_refused_with_what_to_do() -> None:
    done = run("run", "--runs", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("mnist-bench: error: benchmarks do not run on Windows itself")
    assert done.stderr.count("\n") == 1
