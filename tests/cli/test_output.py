"""Files that --output names, whole or not at all; lines about files that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.output import show_problems
from bench.records import store
from bench.records.store import UnreadableFile
from tests.factories import make_benchmark, make_record, saved

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


def shown(problems: list[UnreadableFile], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that people see of these files."""
    capsys.readouterr()
    show_problems(problems)
    return capsys.readouterr().err.splitlines()


def test_second_copies_of_runs_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `publish`, when the published records and the user's own are read together."""
    runs = make_benchmark(tuple(6 + number / 10 for number in range(25)))
    folders = [Path(saved(tmp_path / name, runs)) for name in ("local", "published")]
    problems = store.read_records(folders).problems
    assert len(problems) == 25
    assert shown(problems, capsys) == [
        f"25 files hold the same runs as others, such as {problems[0].path}: counted once"
    ]
    assert shown(problems[:1], capsys) == [f"{problems[0].path}: {problems[0].reason}"]


def test_files_that_are_no_second_copies_keep_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = make_benchmark()
    differs = make_record(run_id=third.run_id, label="another")
    own = Path(saved(tmp_path / "local", [first, second, third]))
    published = Path(saved(tmp_path / "published", [first, second, differs]))
    torn = published / "torn.json"
    torn.write_text("{")
    copies, *others = shown(store.read_records([own, published]).problems, capsys)
    assert copies.startswith("2 files hold the same runs as others, such as ")
    assert len(others) == 2
    assert others[0].startswith(f"{torn}: ")
    assert "claims to be the run of" in others[1]
