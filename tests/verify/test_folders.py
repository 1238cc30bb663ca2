"""`verify` of several folders of records, and of what lies beside them in ``results/local/``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.cli import main
from bench.machine.repository import read_history
from tests.verify.tampering import files, first, put, report_of


@pytest.fixture
def tampered(closed: Path) -> Path:
    """A copy of the folder `closed` that fails a check."""
    folder = closed.with_name("tampered")
    shutil.copytree(closed, folder)
    first(put(protocol__version=3))(folder)
    return folder


def sweep_plan(folder: Path) -> Path:
    """The plan file of a sweep beside the machines' folders; what it says is of no matter here."""
    path = folder / "sweep.2-of-4.sweep"
    path.write_text("{}\n")
    return path


@pytest.mark.slow
def test_each_folder_has_its_table_and_the_worst_decides(
    closed: Path, tampered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["verify", str(tampered), str(closed)]) == 1
    printed = "".join(capsys.readouterr().out.split())  # the titles may be wrapped
    assert printed.index(f"{tampered}:3records") < printed.index(f"{closed}:3records")
    assert printed.count("Apullrequestneeds:") == 2


@pytest.mark.slow
def test_the_json_of_several_folders_is_a_list_of_what_one_folder_gives(
    closed: Path, tampered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [report_of(folder, capsys)[1] for folder in (closed, tampered)]
    assert [report["outcome"] for report in alone] == ["pass", "fail"]
    assert main(["verify", str(closed), str(tampered), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == alone


@pytest.mark.slow
def test_a_failed_check_outweighs_one_that_could_not_be_made(
    closed: Path,
    tampered: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere = read_history(closed)
    monkeypatch.setattr("bench.machine.repository.read_history", lambda: nowhere)
    again = shutil.copytree(closed, closed.with_name("again"))
    assert main(["verify", str(closed), str(again), "--json"]) == 2
    assert main(["verify", str(tampered), str(closed), "--json"]) == 1
    capsys.readouterr()


@pytest.mark.slow
def test_the_plan_of_a_sweep_beside_the_folders_is_passed_over(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, alone, _ = report_of(closed, capsys)
    assert main(["verify", str(closed), str(sweep_plan(closed.parent)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == alone, "one folder: no list"


def test_the_plan_of_a_sweep_alone_is_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = sweep_plan(tmp_path)
    assert main(["verify", str(plan)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{plan} is no folder" in line


def test_several_folders_cannot_be_run_again(
    closed: Path, tampered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(closed), str(tampered), "--rerun", "1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "name one folder of records" in line


def test_folders_of_records_and_pages_are_not_mixed(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = closed.parent / "page.md"
    page.write_text("no number\n")
    assert main(["verify", str(closed), str(page)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "folders of records or Markdown pages, not both" in line


@pytest.mark.slow
def test_a_path_that_is_no_folder_is_refused_before_anything_is_printed(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["verify", str(closed), str(files(closed)[0])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is no folder: name one of records" in err
