"""A `mnist-bench` whose `run` makes simulated records at once; its other commands are real.

`env` is asked once for each folder: it imports torch, and a machine does not change between jobs.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """#!{python}
import os, sys
sys.path.insert(0, {root!r})
if sys.argv[1] == "run":
    from bench.records import store
    from tests.analysis.gate_simulation import side
    from tests.factories import busy
    words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    if not words.keys() <= {{"--runs", "--results-dir", "--label", "--failing", "--busy"}}:
        sys.exit(2)
    machine = {{"cpu": os.environ["CPU"]}} if "CPU" in os.environ else {{}}
    number = int(os.environ["NUMBER"])
    slower = float(os.environ["SLOWER"])
    failing = int(words.get("--failing", "0"))
    records = side(number, int(words["--runs"]), slower, environment=machine)
    for record in busy(records, int(words.get("--busy", "0"))):
        values = {{"label": words.get("--label")}}
        if record.run_index <= failing:
            values |= {{"status": "failed", "reason": "it failed"}}
        store.save_record(
            record.model_copy(update=values),
            __import__("pathlib").Path(words.get("--results-dir", "results/local")),
        )
    sys.exit(failing > 0)
if sys.argv[1] == "env" and os.path.exists(told := __file__ + "-" + "-".join(sys.argv[1:])):
    sys.exit(print(open(told).read(), end=""))
from bench.cli import main
if sys.argv[1] == "env":
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(sys.argv[1:])
    with open(told, "w") as file:
        file.write(said.getvalue())
    print(said.getvalue(), end="")
    sys.exit(status)
sys.exit(main(sys.argv[1:]))
"""
"""The program; it is formatted with the Python to run it by and the project's root."""


def install_stand_in(checkout: Path) -> None:
    """Make a checkout whose set-up installs nothing: the stand-in is in its environment already.

    Args:
        checkout: the folder; it may be there from an earlier job.
    """
    programs, setup = checkout / ".venv" / "bin", checkout / "scripts" / "setup"
    for folder in (programs, setup.parent):
        folder.mkdir(parents=True, exist_ok=True)
    program, python = programs / "mnist-bench", programs / "python"
    program.write_text(STAND_IN.format(python=sys.executable, root=str(ROOT)))
    setup.write_text("#!/bin/sh\n")
    for script in (program, setup):
        script.chmod(0o755)
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)


class SimulatedCache:
    """`actions/cache`: restores a folder by its key, and keeps it where a job ends well.

    Args:
        store: where it keeps folders, between jobs.
        key: the key of this job.
        path: the folder of the job.
    """

    def __init__(self, store: Path, key: str, path: Path) -> None:
        self._kept, self._path = store / key, path
        if self._kept.is_dir():
            shutil.copytree(self._kept, path, dirs_exist_ok=True)

    def end_job(self) -> None:
        """The job was successful: the folder is kept, unless the key has one."""
        if self._path.is_dir() and not self._kept.exists():
            shutil.copytree(self._path, self._kept)


def search_path(added: Path) -> str:
    """The PATH of a step: what earlier steps added, then a runner's, which has no mnist-bench.

    Args:
        added: the file that GITHUB_PATH names, a folder a line.
    """
    runner = [
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "mnist-bench").exists()
    ]
    return os.pathsep.join([*reversed(added.read_text().splitlines()), *runner])
