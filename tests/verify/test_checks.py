"""`verify` on the committed records, and on copies of them with one thing tampered with each."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.machine.repository import read_history
from bench.report import terminal
from bench.report.contribution import PUBLISHED, CheckedFolder
from bench.report.terminal.tables import console_for
from bench.verify import checks
from bench.verify.check_list import CHECKS
from tests.factories import make_record, saved
from tests.verify.tampering import Tamper, Values, edit, every, files, first, put, report_of

KNOWN = {
    # Slowed down on purpose, by a file that differed from the commit.
    "xeon-ab": {"commit"},
    # The first seeds of an earlier version's road were run a second time.
    "xeon-earlier-road": {"seeds"},
    # Its first plan follows that of another experiment in the same folder.
    "icelake-retuned-fast": {"plans"},
}
"""What is not as it should be in what is committed, and stays: records are not edited."""


# --- What is committed


@pytest.mark.thorough
def test_what_is_committed_passes_but_for_what_is_known(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [path for path in sorted((committed / "results").glob("*")) if path.is_dir()]
    studies = committed / "results" / "studies"
    folders = [*(path for path in folders if path != studies), *studies.glob("*/")]
    assert len(folders) >= 10
    for folder in folders:
        status, report, found = report_of(folder, capsys)
        failed = {c["name"] for c in report["checks"] if c["outcome"] == "fail"}
        assert failed == KNOWN.get(folder.name, set()), (folder.name, found)
        assert (status == 1) == bool(failed)
        assert report["records"] == len(files(folder))


@pytest.mark.slow
def test_the_whole_results_folder_at_once(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The Ice Lake Xeon was measured in two checkouts, so its plans are two chains.
    known = {"results": (2, set()), "results/studies": (1, set.union(*KNOWN.values()))}
    for name, expected in known.items():
        status, report, _ = report_of(committed / name, capsys)
        outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
        failed = {check for check, outcome in outcomes.items() if outcome == "fail"}
        assert (status, failed) == expected
        if name == "results":
            assert {check for check in outcomes if outcomes[check] != "pass"} == {"plans"}


@pytest.mark.slow
def test_a_good_folder_passes_every_check(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report, found = report_of(closed, capsys)
    assert (status, report["outcome"], found) == (0, "pass", {})
    assert [check["name"] for check in report["checks"]] == [
        check.name for check in (*CHECKS, PUBLISHED)
    ]
    assert report["pull_request"][0].startswith("1 row of results/README.md to be added")


@pytest.mark.slow
def test_the_table_says_what_to_do(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every(put(protocol__version=3, environment__dirty=True))(closed)
    files(closed)[0].rename(closed / "other.json")
    capsys.readouterr()
    assert main(["verify", str(closed)]) == 1
    printed = " ".join(capsys.readouterr().out.split())  # wrapped, by how long the folder's name is
    for text in (
        "3 records",
        "protocol version 3, not 1 or 2",
        "-> Run again without --target-accuracy",
        "files differed from commit 5a846a378856",
        "other.json: its content is that of 2026",
        "A pull request needs:",
    ):
        assert text in printed
    assert "mnist-bench publish" in printed


@pytest.mark.slow
def test_a_run_that_diverged_contradicts_nothing(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(values: Values) -> None:
        values["epochs"] = values["epochs"][:3]
        values["epochs"][-1]["loss"] = None
        values["evaluations"] = []
        values["laps"] = [lap for lap in values["laps"] if (lap["epoch"] or 0) <= 3]
        values |= {"status": "diverged", "reason": "the loss is not a number"}

    edit(files(closed)[0], diverge)
    assert "status" not in report_of(closed, capsys)[2]


# --- One thing tampered with: (check that must fail, what it says, how)


def _lap(values: Values, kind: str, epoch: int | None) -> Values:
    laps: list[Values] = values["laps"]
    return next(lap for lap in laps if (lap["kind"], lap["epoch"]) == (kind, epoch))


def _shorter_lap(values: Values) -> None:
    _lap(values, "train", 3)["seconds"] -= 1


def _longer_lap(values: Values) -> None:
    _lap(values, "train", 3)["seconds"] += 1


def _no_lap(values: Values) -> None:
    values["laps"].remove(_lap(values, "eval", 16))


def _two_laps_swapped(values: Values) -> None:
    values["laps"][4], values["laps"][5] = values["laps"][5], values["laps"][4]


def _moved(values: Values) -> None:
    for lap in values["laps"][2:]:
        lap["start_seconds"] -= 1


def _one_epoch_less(values: Values) -> None:
    gone = values["epochs"].pop()
    values["evaluations"].pop()
    values["laps"] = [lap for lap in values["laps"] if lap["epoch"] != gone["epoch"]]
    values["samples_seen"] -= gone["samples"]
    last = values["evaluations"][-1]
    values["final_accuracy"] = last["correct"] / last["samples"]


def _an_evaluation_less(values: Values) -> None:
    del values["evaluations"][0]
    values["laps"].remove(_lap(values, "eval", 1))


def _fewer_evaluated(values: Values) -> None:
    values["evaluations"][0] |= {"samples": 9_000, "correct": 5_000}


def _fewer_images(values: Values) -> None:
    values["epochs"][0]["samples"] -= 1000
    values["samples_seen"] -= 1000


def _another_epoch_number(values: Values) -> None:
    values["epochs"][0]["epoch"] = 7


def _all_faster(values: Values) -> None:
    for lap in values["laps"]:
        lap["seconds"] *= 0.8
        lap["start_seconds"] *= 0.8


def _more_images(values: Values) -> None:
    values["epochs"][1] |= {"samples": 120_000, "steps": 938}
    values["samples_seen"] += 60_000
    for one in values["evaluations"][1:]:
        one["samples_seen"] += 60_000


LAPS: list[tuple[str, str, Callable[[Values], None]]] = [
    ("laps", "s between train 3 and eval 3 are in no lap", _shorter_lap),
    ("laps", "train 3 and eval 3 overlap by 1.0", _longer_lap),
    ("laps", "its laps are not those of the epochs and evaluations", _no_lap),
    ("laps", "it reached the target after epoch 16, but no lap says when", _no_lap),
    ("laps", "its laps are not those of the epochs and evaluations", _two_laps_swapped),
    ("laps", "its clock starts -1.00 s", _moved),
    ("laps", "it says completed after 19 of 20 epochs", _one_epoch_less),
    ("laps", "the recipe says 1, 2, 3", _an_evaluation_less),
    ("laps", "epoch 1 was evaluated on 9000 images, not 10000", _fewer_evaluated),
    ("laps", "epoch 1: 59000 images are not 469 batches", _fewer_images),
    ("laps", "has seen other images than were trained", _fewer_images),
    ("laps", "its epochs are 7, 2, 3", _another_epoch_number),
    ("laps", "but the meter was stopped after", _all_faster),
    ("laps", "not 469 batches", put(recipe__batch_size=64, division="open")),
]
OTHERS: list[tuple[str, str, Callable[[Values], None]]] = [
    ("data", "SHA-256 0000, MNIST's is", put(**{"dataset__train-images-idx3-ubyte": "0000"})),
    ("data", "t10k-labels-idx1-ubyte: SHA-256 None", lambda v: v["dataset"].popitem()),
    ("data", "more: SHA-256 00, MNIST's is None", put(dataset__more="00")),
    ("data", "SHA-256 None", put(dataset={})),
    ("commit", "no commit", put(environment__commit=None)),
    (
        "commit",
        "no commit (git failed: so)",
        put(
            schema_version=10,
            environment__commit=None,
            environment__commit_unknown_reason="git failed: so",
        ),
    ),
    ("commit", "files differed from commit", put(environment__dirty=True)),
    ("commit", "files differed from commit", put(environment__dirty=None)),
    ("commit", "is not in this checkout's history", put(environment__commit="0" * 40)),
    ("commit", "is not in this checkout's history", put(environment__commit="--all")),
    ("protocol", "protocol version 3, not 1 or 2", put(protocol__version=3)),
    ("protocol", "knows no protocol version 2", put(protocol__version=2)),
    ("protocol", "not on the test set", put(recipe__evaluation_split="validation")),
    ("division", "it says open division, its recipe is closed", put(division="open")),
    ("division", "unlike the reference in dropout", put(recipe__dropout=0.0)),
    ("division", "its recipe is not valid", put(recipe__trick="yes")),
    ("division", "its recipe is not valid", put(recipe__epochs="many")),
    ("division", "epoch 2 trained on more images", _more_images),
    ("seeds", "run 1 has seed 7; its command starts at 0, so 0 was expected", put(seed=7)),
    ("seeds", "so 5 was expected", lambda v: v["command"].extend(["--seed", "5"])),
    ("seeds", "so 5 was expected", lambda v: v["command"].append("--seed=5")),
    ("seeds", "run 2 is here more than once", put(run_index=2)),
    ("seeds", "run 1 of 3 is not here", put(run_index=2)),
    ("seeds", "run 9 is here, but the benchmark has only 3", put(run_index=9)),
    ("seeds", "run 2 started before run 1 had ended", put(started_at="2026-11-25T14:40:00Z")),
    ("seeds", "its runs differ in set-up, recipe", put(setup__threads=1)),
    ("seeds", "its runs differ in set-up, recipe", put(protocol__runs=4)),
]


def _easier_target(values: Values) -> None:
    values["protocol"]["target_accuracy"] = 0.98
    reached = [e["epoch"] for e in values["evaluations"] if e["correct"] >= 9_800]
    values["target_reached_epoch"] = reached[0]


@pytest.mark.slow
@pytest.mark.parametrize(("check", "says", "change"), LAPS + OTHERS)
def test_a_tampered_record_fails_the_check_for_it(
    closed: Path,
    capsys: pytest.CaptureFixture[str],
    check: str,
    says: str,
    change: Callable[[Values], None],
) -> None:
    name = files(closed)[0].name
    first(change)(closed)
    status, report, found = report_of(closed, capsys)
    assert status == 1, report
    assert any(says in text for text in found[check]), found
    # It says which file, or which benchmark.
    assert all(text.startswith((name[:8], "benchmark", "runs like")) for text in found[check])


@pytest.mark.slow
@pytest.mark.parametrize("check", ["laps", "division", "protocol", "data", "commit"])
def test_most_tampering_fails_one_check_alone(
    closed: Path, capsys: pytest.CaptureFixture[str], check: str
) -> None:
    change = {
        "laps": _longer_lap,
        "division": put(division="open"),
        "protocol": put(protocol__version=3),
        "data": put(dataset={}),
        "commit": put(environment__dirty=True),
    }[check]
    every(change)(closed)
    _, _, found = report_of(closed, capsys)
    assert list(found) == [check]
    named = {text.partition(":")[0] for text in found[check]}
    assert named == {path.name for path in files(closed)}, "every record is looked at"


@pytest.mark.slow
def test_a_target_that_is_easier_fails(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every(_easier_target)(closed)
    _, _, found = report_of(closed, capsys)
    assert list(found) == ["protocol"]
    assert found["protocol"][0].endswith("target 0.98, not 0.994")


def test_an_accuracy_that_its_counts_do_not_give_is_no_record(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first(put(final_accuracy=0.9999))(closed)
    status, _, found = report_of(closed, capsys)
    assert status == 1
    assert "final_accuracy is not what the last evaluation says" in found["records"][0]


# --- Files


def _renamed(folder: Path) -> None:
    files(folder)[0].rename(folder / "20200101T000000Z-reference-00000000.json")


def _copied(folder: Path) -> None:
    shutil.copy(files(folder)[0], folder / "copy.json")


def _torn(folder: Path) -> None:
    path = files(folder)[0]
    path.write_bytes(path.read_bytes()[:500])


def _linked(folder: Path) -> None:
    path = files(folder)[0]
    target = path.rename(folder.parent / "elsewhere.json")
    path.symlink_to(target)


def _written(name: str, text: str = "x") -> Tamper:
    def tamper(folder: Path) -> None:
        (folder / name).write_text(text)

    return tamper


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "tamper"),
    [
        ("20200101T000000Z-reference-00000000.json: its content is that of 2026", _renamed),
        ("copy.json: the same run as", _copied),
        ("Invalid JSON", _torn),
        ("its schema_version is 99", first(put(schema_version=99))),
        ("Extra inputs are not permitted", first(put(comment="mine"))),
        ("it is a link", _linked),
        ("notes.txt: not a record", _written("notes.txt")),
        (".DS_Store: not a record", _written(".DS_Store")),
        (".hidden.json: not a record", _written(".hidden.json", "{}")),
        ("x.noise: not a valid noise floor", _written("x.noise")),
        ("x.peak: not a valid measured peak", _written("x.peak", '{"flops_per_second": NaN}')),
        ("x.sweep: not a valid sweep plan", _written("x.sweep", "x")),
        ("x.sweep: not a valid sweep plan", _written("x.sweep", "")),
    ],
)
def test_what_is_no_record_fails(
    closed: Path, capsys: pytest.CaptureFixture[str], says: str, tamper: Tamper
) -> None:
    tamper(closed)
    status, _, found = report_of(closed, capsys)
    assert status == 1
    assert any(says in text for text in found["records"]), found


def test_a_folder_without_records_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "is no folder: name one of records" in lines[0]
    assert "make some with `mnist-bench run`" in lines[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stops", "accuracies", "is_whole"),
    [
        (True, (0.98, 0.99, 0.9941), True),
        (True, (0.98, 0.9941, 0.9945), False),  # it went on after the target
        (False, (0.98, 0.99, 0.9941), False),
    ],
)
def test_a_run_may_be_short_where_it_stopped_at_the_target(
    stops: bool,
    accuracies: tuple[float, ...],
    is_whole: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = make_record(
        accuracies=accuracies, recipe={"epochs": 6}, protocol={"stop_at_target": stops}
    )
    saved(tmp_path, [record])
    laps = report_of(tmp_path, capsys)[2].get("laps", [])
    assert any("it says completed after 3 of 6 epochs" in text for text in laps) is not is_whole


# --- The code


def test_without_a_checkout_the_commit_is_unknown(tmp_path: Path, closed: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    folder = checks.read_folder(closed, read_history(tmp_path / "unpacked"), frozenset())
    results = checks.run_checks(folder, CHECKS)
    found = {r.check.name: r.outcome.value for r in results if r.outcome.value != "pass"}
    assert found == {"commit": "unknown", "parameters": "unknown"}
    assert checks.overall_outcome(results).value == "unknown"


def test_what_cannot_be_checked_is_exit_2(
    closed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = read_history(closed)
    monkeypatch.setattr("bench.machine.repository.read_history", lambda: nowhere)
    status, report, _ = report_of(closed, capsys)
    assert (status, report["outcome"]) == (2, "unknown")


# --- Inert


@pytest.mark.slow
def test_hostile_text_comes_out_inert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07[red]/home/alice\n\u202e"
    runs = [
        make_record(label=evil, dataset={evil: evil}, environment={"commit": evil}, division="open")
    ]
    folder = Path(saved(tmp_path, runs))
    (folder / "a\x1b[31m\n.txt").write_text("x")
    assert main(["verify", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert not set("\x1b\x07\u202e") & set(printed)
    assert "[red]" in printed
    _, report, _ = report_of(folder, capsys)
    assert all(text.isprintable() for check in report["checks"] for text in check["findings"])


@pytest.mark.slow
def test_a_check_shows_three_findings_and_says_how_many_more(closed: Path) -> None:
    for number in range(5):
        (closed / f"{number}.txt").write_text("x")
    folder = checks.read_folder(closed, read_history(), frozenset())
    stream = io.StringIO()
    console = console_for(stream)
    results = tuple(checks.run_checks(folder, CHECKS))
    console.print(terminal.checks([CheckedFolder(folder=folder, results=results, steps=())]))
    assert "and 2 more: --json lists them" in stream.getvalue()
