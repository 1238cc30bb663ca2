"""Files that --output names: whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMITED = """
import resource, sys
from pathlib import Path
from bench.cli.output import write_file
from mnist_cnn.errors import UsageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(bytes(2000), Path(sys.argv[1]))
except UsageError as error:
    print(error, end="")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
@pytest.mark.parametrize("exists", [True, False])
def test_where_the_disk_takes_no_more_no_part_of_a_file_stays(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "table.csv"
    if exists:
        path.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"cannot write {path}: File too large; ")
    assert "raise the limit" in done.stdout
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == (
        [(path, "before")] if exists else []
    )
