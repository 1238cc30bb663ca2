"""Files, names and links of strangers, through the command lines: one line, exit 2, no harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.records import store
from bench.records.folders import LOCAL_DIR, RESULTS_DIR
from mnist_cnn.__main__ import main as model
from tests.factories import make_benchmark, make_record

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
LONG = "n" * 300
EVIL = "x\x1b]0;owned\x07\x1b[31m\u202e"
CONTROLS = set("\x1b\x07\x00\u202e")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for record in make_benchmark():
        store.save_record(record, folder)
    return folder


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must be refused in one line, and returns this line."""

    def run(*words: object, command: Callable[[list[str]], int] = main) -> str:
        capfd.readouterr()
        assert command([str(word) for word in words]) == 2
        printed = capfd.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        line = printed.err.splitlines()[-1]
        assert ": error: " in line
        assert not CONTROLS & set(printed.err)
        return line

    return run


def edited(results: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = next(results.rglob("*.json"))
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


# --- Names


@pytest.mark.parametrize(
    "words",
    [
        ["report", LONG],
        ["report", ".", "--to", "csv", "--output", LONG],
        ["report", ".", "--to", "mllog", "--output", LONG],
        ["report", ".", "--plots", LONG],
        ["verify", LONG],
        ["publish", LONG],
        ["publish", "--results-dir", LONG],
        ["publish", "--check", "--results-dir", LONG],
        ["compare", LONG, LONG],
        ["compare", "a", "b", "--results-dir", LONG],
        ["data", "--offline", "--data-dir", LONG],
        ["data", "--offline", "--data-dir", ".", "--from", LONG],
        ["data", "--offline", "--data-dir", "~nosuchuser/x"],
        ["data", "--offline", "--data-dir", ".", "--from", "~nosuchuser"],
        ["sweep", LONG, "--dry-run"],
        ["sweep", "--dry-run", "--results-dir", LONG],
        ["ab", "--a", "--threads 1", "--b", "--threads 2", "--dry-run", "--results-dir", LONG],
    ],
    ids=" ".join,
)
def test_a_name_that_no_file_can_have_is_one_line(
    words: list[str],
    results: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(results)
    assert words[-1] in (line := refused(*words)) or LONG in line


@pytest.mark.parametrize(
    "words",
    [
        ["predict", LONG, "picture.png"],
        ["export", LONG, "--to", "safetensors"],
        ["train", "--save", LONG],
        ["train", "--save", f"{LONG}/model"],
        ["train", "--data-dir", "~nosuchuser/x"],
    ],
    ids=" ".join,
)
def test_so_it_is_for_the_model(words: list[str], refused: Callable[..., str]) -> None:
    line = refused(*words, command=model)
    assert LONG in line or "~nosuchuser" in line


def test_an_unknown_home_folder_in_the_environment_is_one_line(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_DATA_DIR", "~nosuchuser/x")
    assert "~nosuchuser/x: there is no home folder of that name" in refused("data", "--offline")


@pytest.mark.parametrize(
    "words",
    [
        ["report", ""],
        ["report", "--to", "csv", "--output", ""],
        ["report", "--plots="],
        ["verify", ""],
        ["publish", ""],
        ["data", "--offline", "--data-dir", ""],
        ["run", "--dry-run", "--data-dir", ""],
        ["run", "--dry-run", "--results-dir", ""],
        ["sweep", "--dry-run", "--results-dir", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_folder(
    words: list[str], refused: Callable[..., str]
) -> None:
    assert refused(*words).endswith("it is empty: name a file or a folder")


@pytest.mark.parametrize(
    "words",
    [["predict", "", "a"], ["predict", "a", ""], ["train", "--save", ""], ["train", "--data-dir="]],
    ids=" ".join,
)
def test_so_for_the_model(words: list[str], refused: Callable[..., str]) -> None:
    assert refused(*words, command=model).endswith("it is empty: name a file or a folder")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (main, ["report", EVIL]),
        (main, ["data", "--offline", "--data-dir", EVIL]),
        (main, ["sweep", f"{EVIL}.toml", "--dry-run"]),
        (main, ["compare", EVIL, "b"]),
        (main, ["verify", EVIL]),
        (model, ["predict", EVIL, "a"]),
        (model, ["export", EVIL, "--to", "safetensors"]),
        (model, ["train", "--save", f"{EVIL}/a"]),
    ],
    ids=["report", "data", "sweep", "compare", "verify", "predict", "export", "train"],
)
def test_a_name_says_nothing_to_the_terminal(
    command: Callable[[list[str]], int],
    words: list[str],
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*words, command=command)  # which looks for controls


# --- Reading


def make_unreadable(path: Path, kind: str) -> None:
    """What is no file, or one without an end."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**40)


@pipes
@pytest.mark.parametrize("kind", ["pipe", "endless", "sparse"])
def test_a_sweep_reads_files_only(kind: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "m.toml"
    make_unreadable(path, kind)
    line = refused("sweep", path, "--dry-run")
    assert line.startswith(f"mnist-bench: error: cannot read {path}: ")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xef\xbb\xbfseeds = 1", "byte order mark"),
        ("seeds = 1".encode("utf-16"), "UTF-16"),
        (b"a = " + b"[" * 30_000, "nested too deeply"),
        (b"seeds = " + b"9" * 5000, "not a TOML file"),
        (b"seeds = 999999999", "at most 100,000 runs, not 999,999,999"),
        (b"seeds = true", "whole numbers"),
        (b"seeds = 1000\nthreads = " + str([*range(1, 1001)]).encode(), "at most 100,000 runs"),
        (b"a" + b".a" * 40_000 + b" = 1", "larger than"),
        (b"threads = 0x" + b"f" * 5000, "whole numbers up to 999,999,999"),
        (b"seeds = 0x" + b"f" * 5000, "whole numbers up to 999,999,999"),
        (b"scaling = 0x" + b"f" * 5000, "scaling is strong or weak"),
        (b"recipe = ['" + b"f" * 30_000 + b"']", "unknown recipe 'fff"),
    ],
)
def test_a_matrix_has_limits(
    content: bytes, complaint: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "m.toml").write_bytes(content)
    line = refused("sweep", tmp_path / "m.toml", "--dry-run")
    assert complaint in line
    assert len(line) < 2_100


def test_of_own_benchmarks_the_newest_may_have_no_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for records in (make_benchmark(label="old"), make_benchmark(label="new")):
        for record in records:
            store.save_record(record, LOCAL_DIR)
    for path in LOCAL_DIR.rglob("*.json"):
        values = json.loads(path.read_text())
        if values["label"] == "new":
            path.write_text(json.dumps(values | {"started_at": "2026-01-01T00:00:00"}))
    assert main(["report", "--per", "run", "--to", "csv", "--columns", "label"]) == 0
    assert capfd.readouterr().out.split() == ["label", "new", "new", "new"]


@pipes
@pytest.mark.parametrize("kind", ["pipe", "endless", "sparse"])
def test_mnist_is_read_from_files_only(
    kind: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    make_unreadable(path, kind)
    assert str(path) in refused("data", "--offline", "--data-dir", tmp_path)


@pytest.mark.slow
@pipes
def test_a_pipe_in_place_of_the_page_ends(
    results: Path, refused: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(results / store.PAGE_NAME)
    assert main(["publish", "--check", "--results-dir", str(results)]) == 1
    assert "README.md: cannot be read (not a regular file)" in capfd.readouterr().out
    assert main(["verify", str(results)]) == 1


def test_a_record_that_lies_elsewhere_is_not_of_the_folder(
    results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = store.save_record(make_record(seed=9), tmp_path / "elsewhere")
    (results / "link.json").symlink_to(elsewhere)
    (results / "own.json").symlink_to(next(results.rglob("*Z-*.json")))
    columns = ["--per", "run", "--to", "csv", "--columns", "seed"]
    assert main(["report", str(results), *columns]) == 0
    printed = capfd.readouterr()
    assert printed.out.split() == ["seed", "0", "1", "2"]
    assert printed.err == (
        f"{results}/link.json: a link that leads out of the folder: name the file itself to read "
        "it\n"
    )
    assert main(["report", str(results / "link.json"), *columns]) == 0
    assert capfd.readouterr().out.split() == ["seed", "9"]


@pytest.mark.parametrize("command", [["report", "--to", "html"], ["report", "--plots", "plots"]])
def test_laps_of_ages_are_no_record(
    command: list[str], results: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)
    for path in results.rglob("*.json"):
        values = json.loads(path.read_text())
        for lap in values["laps"]:
            lap["seconds"] = 1e308
        path.write_text(json.dumps(values))
    assert "no run records in" in refused(*command, results)


@pytest.mark.slow
def test_a_billion_processes_are_one_finding(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edited(results, lambda values: values["setup"].update(processes=10**9, parallel_seeds=10**9))
    assert main(["verify", str(results)]) == 1
    assert main(["report", str(results)]) == 0


@pytest.mark.parametrize("where", ["folder", "zip"])
def test_of_very_many_unreadable_files_some_are_named(
    where: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = results
    if where == "zip":
        path = results.parent / "many.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(500):
                archive.writestr(f"{number}.json", "")
            archive.writestr("z.json", store.to_json(make_record()))
    else:
        for number in range(500):
            (results / f"{number}.json").touch()
    assert main(["report", str(path), "--to", "csv"]) == 0
    *named, last = capfd.readouterr().err.splitlines()
    assert len(named) == 20
    assert last == "and 480 files more that cannot be read"


# --- Writing


@pytest.mark.slow
def test_publish_writes_through_no_link(
    results: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (store.PAGE_NAME, store.CHART_NAME, store.REPORT_NAME):
        (results / name).symlink_to(victim)
    assert "README.md: it is a link" in refused("publish", "--results-dir", results)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("what", ["record", "folder"])
def test_publish_copies_to_no_link(
    what: str, results: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    record = next(results.rglob("*.json"))
    target, elsewhere = tmp_path / "published" / record.parent.name, tmp_path / "elsewhere"
    target.parent.mkdir()
    if what == "folder":
        elsewhere.mkdir()
        target.symlink_to(elsewhere)
    else:
        target.mkdir()
        (target / record.name).symlink_to(elsewhere)
    line = refused("publish", record.parent, "--results-dir", target.parent)
    assert "it is a link" in line
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


@pytest.mark.parametrize("option", ["--output", "--plots"])
def test_output_goes_through_no_link(
    option: str, results: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    victim, output = tmp_path / "victim", tmp_path / "output"
    victim.write_text("precious")
    if option == "--output":
        output.symlink_to(victim)
        words = ["--to", "csv"]
    else:
        output.mkdir()
        (output / "time-to-target.svg").symlink_to(victim)
        words = ["--to", "html"]
    assert "it is a link" in refused("report", results, *words, option, output)
    assert victim.read_text() == "precious"


def test_a_hyphen_is_stdout(
    results: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results)
    words = ["report", str(results), "--per", "run", "--to", "csv", "--columns", "seed"]
    for name in ("-", "/dev/stdout"):
        assert main([*words, "--output", name]) == 0
        assert capfd.readouterr().out.split() == ["seed", "0", "1", "2"]
    assert not (results / "-").exists()
    assert main([*words, "--output", "/dev/null"]) == 0


def test_csv_holds_no_controls(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    label = "a\x1b[31m\x07\x00\u202eb\u200b"
    edited(results, lambda values: values.update(label=label))
    assert main(["report", str(results), "--per", "run", "--to", "csv"]) == 0
    printed = capfd.readouterr().out
    assert not CONTROLS & set(printed)
    assert "a[31mb" in printed


@pytest.mark.skipif(os.name != "posix", reason="has no such names")
@pytest.mark.parametrize(
    "words", [["run"], ["run", "--parallel-seeds", "2"], ["sweep", "--seeds", "1"]]
)
def test_the_commands_of_a_dry_run_are_whole_and_obeyed_by_no_terminal(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash to read the command")
    results = tmp_path / EVIL
    options = ["--device", "cpu", "--threads", "1", "--results-dir", str(results)]
    of_run = [] if words[0] == "sweep" else ["--label", EVIL, "--runs", "2"]
    assert main([*words, *options, *of_run, "--dry-run"]) == 0
    printed = capfd.readouterr()
    assert not CONTROLS & set(printed.out + printed.err)
    read = subprocess.run(
        [bash, "-c", f"printf '%s\\0' {printed.out.splitlines()[0]}"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=True,
    )
    assert str(results) in read.stdout.decode().split("\0")


def test_a_control_hides_no_formula(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edited(results, lambda values: values.update(label="\u200b=1+1"))
    assert main(["report", str(results), "--per", "run", "--to", "csv", "--columns", "label"]) == 0
    assert "'=1+1" in capfd.readouterr().out


def test_a_folder_before_the_first_run_is_no_error_of_the_disk(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "make some with `mnist-bench run`" in refused("report", RESULTS_DIR)
