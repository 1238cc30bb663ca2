"""A record that the results folder does not take is kept, and the line brings it back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.launch.result import save_or_complain
from bench.records.record_file import file_name, parse_record
from bench.records.schema import SCHEMA_VERSION
from bench.records.store import machine_name, read_records
from tests.factories import make_record

ROOT = Path(__file__).resolve().parents[2]
FAILURES = {
    "a file in the folder's place": ("touch r", "a file has the name that"),
    "a file in the machine folder's place": ("mkdir r && touch r/$MACHINE", "a file has the name"),
    "the record's name is taken": ("mkdir -p r/$MACHINE/$NAME", "a file has the name"),
    "a link to itself": ("ln -s r r", "a link is in the way"),
    "a full disk": ("mkdir r && mount -t tmpfs -o size=4k tmpfs r", "free some space"),
    "no inodes": ("mkdir r && mount -t tmpfs -o nr_inodes=2 tmpfs r", "free some space"),
    "a read-only disk": ("mkdir r && mount -t tmpfs -o ro tmpfs r", "read-only"),
}
SAVE = """
from pathlib import Path
from bench.launch.result import save_or_complain
from bench.records.schema import RunRecord
record = RunRecord.model_validate_json(Path("record.json").read_bytes())
assert save_or_complain(record, Path("r")) is None
"""


@pytest.mark.skipif(os.name != "posix", reason="prepared with a POSIX shell")
@pytest.mark.parametrize("failure", FAILURES)
def test_a_record_is_kept_and_the_line_brings_it_back(failure: str, tmp_path: Path) -> None:
    record = make_record(label="größer")
    prepare, advice = FAILURES[failure]
    names = {"MACHINE": machine_name(record.environment), "NAME": file_name(record)}
    (tmp_path / "record.json").write_bytes(record.model_dump_json().encode())
    (tmp_path / "save.py").write_text(SAVE)
    script = f"if ! {{ {prepare}; }}; then exit 77; fi; exec {sys.executable} save.py"
    unshare = ["unshare", "-Urm"] if "mount" in prepare else []
    done = subprocess.run(
        [*unshare, "sh", "-c", script],
        cwd=tmp_path,
        env=dict(os.environ)
        | names
        | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "my state")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip("mounting is not allowed here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("mnist-bench: error: the record could not be saved in r: ")
    assert advice in done.stderr
    assert [kept for _, kept in read_records([tmp_path / "my state"]).records] == [record]
    command = done.stderr.strip().rpartition("; then: ")[2]
    assert command.endswith(" r")
    # The cause of the failure is still there: into another folder.
    command = command.replace("mkdir -p r ", "mkdir -p back ").removesuffix(" r") + " back"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert read_records([tmp_path / "back"]).records == [
        (tmp_path / "back" / names["MACHINE"] / names["NAME"], record)
    ]


LIMITED = """
import resource
from pathlib import Path
from bench.launch.result import save_or_complain
from tests.factories import make_record
record = make_record()
Path("record.json").write_text(record.model_dump_json())
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
assert save_or_complain(record, Path("results")) is None
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_where_no_file_can_be_written_the_record_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "s")},
        capture_output=True,
        text=True,
        check=True,
    )
    line, document = done.stderr.splitlines()
    assert "File too large; files of this process may not be as large: raise the limit" in line
    named = re.fullmatch(r".*; then save the next line as (results/\S+\.json)", line)
    assert named is not None
    record = parse_record(tmp_path / named[1], document.encode())
    assert record == parse_record(tmp_path, (tmp_path / "record.json").read_bytes())
    assert json.loads(document)["schema_version"] == SCHEMA_VERSION
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "record.json"]


def test_without_a_state_folder_it_goes_to_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    record = make_record()
    assert save_or_complain(record, tmp_path / "file") is None
    ((path, kept),) = read_records([tmp_path / "tmp"]).records
    assert kept == record
    assert str(path) in capsys.readouterr().err
