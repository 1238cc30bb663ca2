"""Zip files of records: read like folders, whatever somebody made of them."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.cli import main
from bench.records import record_file, store, zip_archive
from bench.records.schema import RunRecord
from tests.factories import make_benchmark, make_record

RECORD = store.to_json(make_record())


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return path


@pytest.fixture
def runs() -> list[RunRecord]:
    return make_benchmark((6.4, 6.5, 6.7))


def test_a_zip_file_is_read_like_the_folder_that_it_was_made_of(
    runs: list[RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in runs:
        store.save_record(run, tmp_path / "results")
    paths = sorted((tmp_path / "results").rglob("*.json"))
    files: dict[str, str | bytes] = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in paths
    }
    path = zipped(tmp_path / "mailed.zip", files | {"results/notes.txt": "hello"})
    columns = ["--columns", "run_id,time_to_target_seconds", "--per", "run", "--to", "csv"]
    assert main(["report", str(tmp_path / "results"), *columns]) == 0
    expected = capsys.readouterr().out
    assert main(["report", str(path), *columns]) == 0
    assert capsys.readouterr().out == expected
    found = store.read_records([path])
    assert [record for _, record in found.records] == runs
    assert found.records[0][0] == path / paths[0].relative_to(tmp_path)
    # Whatever it is called; the same runs in the folder beside it are copies.
    renamed = path.rename(tmp_path / "mailed")
    both = store.read_records([renamed, tmp_path / "results"])
    assert len(both.records) == 3
    assert len(both.problems) == 3


def test_what_is_no_record_is_listed_as_in_a_folder(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.zip",
        {
            "a.json": RECORD,
            "b.json": "{}",
            "c.json": "torn",
            ".d.json": "x",
            "__MACOSX/._a.json": "",
        },
    )
    found = store.read_records([path])
    assert [where for where, _ in found.records] == [path / "a.json"]
    assert [problem.path.name for problem in found.problems] == ["b.json", "c.json"]


def test_nothing_is_written_and_no_name_leads_elsewhere(tmp_path: Path) -> None:
    names = ["/etc/one.json", "../../two.json", "a/../three.json", "\x1b[31mfour\n|<b>.json"]
    folder = tmp_path / "in"
    folder.mkdir()
    path = zipped(folder / "a.zip", {name: store.to_json(make_record()) for name in names})
    before = sorted(os.walk(tmp_path))
    found = store.read_records([path])
    assert len(found.records) == 4
    assert all(where.is_relative_to(path) and ".." not in where.parts for where, _ in found.records)
    assert sorted(os.walk(tmp_path)) == before


def test_a_member_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.zip",
        {"a.json": RECORD, "huge.json": b" " * (record_file.LARGEST_RECORD_BYTES + 1)},
    )
    assert path.stat().st_size < 100_000
    found = store.read_records([path])
    assert len(found.records) == 1
    [problem] = found.problems
    assert problem.reason == "larger than 16,777,216 bytes: no record is"


def test_there_is_an_end_to_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "LARGEST_TOTAL_BYTES", len(RECORD))
    files = {f"{n}.json": store.to_json(make_record()) for n in range(5)}
    found = store.read_records([zipped(tmp_path / "a.zip", dict(files))])
    assert len(found.records) == 2
    assert "the rest is not read" in found.problems[0].reason


def test_a_zip_file_of_another_size_than_any_mail_is_not_even_listed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.json": RECORD})
    os.truncate(path, 256 * 1024**2 + 1)
    [problem] = store.read_records([path]).problems
    assert problem.reason == "larger than 268,435,456 bytes"


def test_there_is_an_end_to_the_number_of_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted chunk by chunk: here the first entry of the list begins in one chunk, and
    ends in the next."""
    record = RECORD.encode()
    border = zip_archive._CHUNK_BYTES
    padding = border - 2 - (30 + len("a.json") + len(record)) - (30 + len("p.txt"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("a.json", record)
        opened.writestr("p.txt", bytes(padding))
    assert (tmp_path / "a.zip").read_bytes().index(b"PK\x01\x02") == border - 2
    monkeypatch.setattr(zip_archive, "MOST_MEMBERS", 2)
    assert len(store.read_records([tmp_path / "a.zip"]).records) == 1
    monkeypatch.setattr(zip_archive, "MOST_MEMBERS", 1)
    [problem] = store.read_records([tmp_path / "a.zip"]).problems
    assert problem.reason == "more than 1 files in it"


def test_two_members_of_one_name_are_both_accounted_for(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
            for _ in range(2):
                opened.writestr("a.json", store.to_json(make_record()))
    assert len(store.read_records([tmp_path / "a.zip"]).records) == 2


def test_names_that_fill_a_page_are_not_shown(tmp_path: Path) -> None:
    long = "a/" * 2000 + "a.json"
    archive = zipped(tmp_path / "a.zip", {"short.json": RECORD, long: RECORD, "b/" + long: RECORD})
    result = store.read_records([archive])
    assert [path for path, _ in result.records] == [archive / "short.json"]
    ((path, reason),) = ((problem.path, problem.reason) for problem in result.problems)
    assert path == archive
    assert reason == "names of more than 512 letters in it: those files are not read"


def test_another_compression_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("a.json", RECORD)
    [problem] = store.read_records([tmp_path / "a.zip"]).problems
    assert "use deflate" in problem.reason


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04torn"])
def test_what_is_no_zip_file_is_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert main(["report", str(tmp_path / "a.zip")]) == 2
    problem, _ = capsys.readouterr().err.splitlines()
    assert problem == f"{tmp_path}/a.zip: not a zip file, or a damaged one"


@pytest.mark.slow
@given(data=st.data())
def test_a_damaged_one_is_read_as_far_as_it_goes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = zipped(tmp_path_factory.getbasetemp() / "damaged.zip", {"a.json": RECORD})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    found = store.read_records([path])
    assert all(problem.reason.isprintable() for problem in found.problems)
    assert all(str(record.run_id) for _, record in found.records)
