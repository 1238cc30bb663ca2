"""A copy of the project's scripts, with a uv that only logs what it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FAKE_UV = """#!/bin/sh
echo "$*" >>"$UV_LOG"
echo "index ${UV_DEFAULT_INDEX:-none}" >>"$UV_LOG"
[ -z "${UV_FAILS:-}" ] || exit 1
case "$*" in *requirements-zig.txt) [ -z "${UV_HAS_NO_ZIGLANG:-}" ] || exit 1 ;; esac
if [ -n "${UV_SLOW:-}" ]; then
    mkdir "$UV_LOG.busy" || echo OVERLAP >>"$UV_LOG"
    while ! [ -e "$UV_LOG.go-on" ]; do sleep 0.1; done
    rmdir "$UV_LOG.busy"
fi
"""


class Project:
    """A copy of the scripts, and a uv that logs its arguments."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder = folder
        self.log = tools / "uv.log"
        (tools / "uv").write_text(FAKE_UV)
        (tools / "uv").chmod(0o755)
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("UV_")},
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "UV_LOG": str(self.log),
        }
        self.environment.pop("CI", None)
        self.environment.pop("PIP_INDEX_URL", None)

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.folder / script, *arguments],
            cwd=self.folder.parent,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Exit status, output and error output of a script started from another folder."""
        with self.start(script, *arguments, **environment) as process:
            out, err = process.communicate()
        return process.returncode, out, err

    def uv_commands(self) -> list[str]:
        """The uv commands since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def replace_python(self) -> None:
        """Let the environment's Python print its arguments, one per line."""
        python = self.folder / ".venv" / "bin" / "python"
        version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout
        python.unlink()
        python.write_text(
            f'#!/bin/sh\n[ "$1" = -V ] && echo "{version.strip()}" || printf "%s\\n" "$@"\n'
        )
        python.chmod(0o755)
