"""`verify` on the published page, and on private data in what would be published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.records import store
from tests.factories import make_benchmark, saved
from tests.verify.tampering import CLOSED, Values, edit, every, files, first, put, report_of


@pytest.fixture
def published(committed: Path) -> Path:
    return committed / "results" / "intel-xeon-2-cores"


@pytest.mark.slow
def test_a_published_cell_that_is_better_than_its_laps(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = published.parent / store.PAGE_NAME
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("| 6.26 s (", "| 5.26 s ("), encoding="utf-8")
    status, _, found = report_of(published, capsys)
    assert status == 1
    assert found == {
        "published": [
            "55d4e4a2: to target: published 5.26 s (5.94–6.74), its raw laps give 6.26 s "
            "(5.94–6.74)"
        ]
    }


@pytest.mark.slow
def test_a_published_command_that_is_not_the_record_s(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = published.parent / store.PAGE_NAME
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("fast --runs 20", "fast --runs 2"), encoding="utf-8")
    _, _, found = report_of(published, capsys)
    assert list(found) == ["published"]
    assert "55d4e4a2: how it was measured is not published as" in found["published"][0]


@pytest.mark.slow
def test_runs_left_out_of_what_is_published_are_missed_though_the_records_agree(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that missed the target dropped, and what the nineteen others promise made to fit."""
    runs = [p for p in files(published) if "55d4e4a2" in p.read_text(encoding="utf-8")]
    for path in runs[-1:]:
        path.unlink()

    def fitted(values: Values) -> None:
        values["protocol"]["runs"] = 19
        values["command"][values["command"].index("20")] = "19"

    for path in runs[:-1]:
        edit(path, fitted)
    _, _, found = report_of(published, capsys)
    assert list(found) == ["published"]
    assert "55d4e4a2: reached: published 15/20, its raw laps give 15/19" in found["published"]


def test_a_published_benchmark_whose_records_are_gone(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in files(published):
        if CLOSED in path.read_text(encoding="utf-8"):
            path.unlink()
    _, _, found = report_of(published, capsys)
    assert found == {"published": ["`7691c330`: published, but its records are not here"]}


@pytest.mark.slow
def test_records_in_the_results_folder_itself_are_published_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "flat"
    [machine] = Path(saved(tmp_path / "made", make_benchmark())).iterdir()
    machine.rename(folder)
    assert main(["publish", "--results-dir", str(folder)]) == 0
    _, report, found = report_of(folder, capsys)
    assert "published" not in found
    assert not any("to be made" in step for step in report["pull_request"])
    page = folder / store.PAGE_NAME
    page.write_text(page.read_text(encoding="utf-8").replace("35.9 s", "5.9 s"), encoding="utf-8")
    assert "published 5.9 s" in report_of(folder, capsys)[2]["published"][0]


GPU_UUID = f"GPU-12345678-{'abcd-' * 3}{'0' * 12}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "change"),
    [
        ("label: a home folder: home/alice", put(label="in /home/alice/x")),
        (
            "command: a home folder: Users/alice",
            lambda values: values["command"].append("--results-dir=/Users/alice/r"),
        ),
        (
            "setup.environment.CUDA_VISIBLE_DEVICES: a device's UUID",
            put(setup__environment={"CUDA_VISIBLE_DEVICES": GPU_UUID}),
        ),
        ("an IP address: 192.168.1.20", put(label="MASTER_ADDR 192.168.1.20")),
        ("a token", lambda values: values["command"].extend(["--token", "hunter2secret"])),
        ("a user at a host: alice@box", put(reason=None, label="alice@box")),
    ],
)  # fmt: skip
def test_private_data_in_a_record_fails(
    closed: Path,
    capsys: pytest.CaptureFixture[str],
    says: str,
    change: Callable[[Values], None],
) -> None:
    every(change)(closed)
    status, _, found = report_of(closed, capsys)
    assert status == 1
    assert len(found["private"]) == 3
    assert says in found["private"][0]


@pytest.mark.slow
def test_private_data_is_found_in_what_is_no_record_and_in_names(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (closed / "run.log").write_text("host alice-laptop.local\n")
    (closed / "torn.json").write_text('{"label": "/home/alice')
    (closed / "x.noise").write_text('{"case": "/home/alice"}')
    (closed / "alice@box.txt").write_text("")
    _, _, found = report_of(closed, capsys)
    assert [text.split(": ")[0] for text in found["private"]] == [
        "alice@box.txt",
        "run.log",
        "torn.json",
        "x.noise",
    ]


@pytest.mark.slow
def test_your_own_name_is_found_where_you_verify(
    closed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "Margarethe")
    monkeypatch.setattr("socket.gethostname", lambda: "workbox7.example.org")
    first(put(label="for margarethe on WORKBOX7"))(closed)
    _, _, found = report_of(closed, capsys)
    assert [text.rpartition(": ")[2] for text in found["private"]] == ["margarethe", "workbox7"]
