"""results/README.md is what the committed records say, and holds what they say inertly."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt

from bench.analysis.result_tables import find_entries
from bench.cli import main
from bench.records import store
from bench.records.protocol import PROTOCOL_VERSION
from bench.report import results_page
from bench.report.results_block import END, START
from bench.text import printable
from tests.factories import make_benchmark, make_record, saved


def publish(folder: Path | str, *options: str) -> int:
    return main(["publish", "--results-dir", str(folder), *options])


DEVICES = "Device number and code number"


def cells(page: str, first: str = "id") -> list[dict[str, str]]:
    """The rows of a page's tables, by heading, as a reader of Markdown sees them.

    Args:
        page: the page.
        first: the first heading of the tables.
    """
    html = MarkdownIt("commonmark").enable("table").render(page)
    rows = []
    for table in re.findall(r"<table>(.*?)</table>", html, re.DOTALL):
        headings = re.findall(r"<th[^>]*>(.*?)</th>", table)
        if headings[0] != first:
            continue
        rows += [
            dict(zip(headings, re.findall(r"<td[^>]*>(.*?)</td>", row), strict=True))
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
        ]
    return rows


def pinned_version(package: str) -> str:
    """The version of requirements.txt."""
    lines = (Path(__file__).resolve().parents[2] / "requirements.txt").read_text("utf-8")
    match = re.search(rf"^{package}==([\w.]+)", lines, re.MULTILINE)
    assert match is not None
    return match[1]


@pytest.mark.slow
@pytest.mark.skipif(
    version("matplotlib") != pinned_version("matplotlib"),
    reason="another matplotlib than the pinned one draws the committed figures otherwise",
)
def test_what_is_committed_is_what_the_records_say(
    committed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = publish(committed / "results", "--check")
    assert (status, capsys.readouterr().out) == (0, ""), "run `mnist-bench publish`"


def test_the_committed_page_has_every_run_once(committed: Path) -> None:
    page = (committed / "results" / store.PAGE_NAME).read_text(encoding="utf-8")
    rows = cells(page)
    assert sum(int(row["reached"].split("/")[1]) for row in rows) == len(
        store.read_records([committed / "results"]).records
    )
    # Of the peaks beside the records, wherever publish was started.
    report = (committed / "results" / store.REPORT_NAME).read_text(encoding="utf-8")
    assert '<figure id="figure-peak">' in report
    [claim] = [row for row in rows if row["id"] == "<code>55d4e4a2</code>"]
    assert claim["reached"] == "15/20"
    assert claim["accuracy"].startswith("99.43 % (99.40–")


@pytest.mark.slow
def test_a_difference_is_a_line_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(saved(tmp_path / "results", make_benchmark()))
    assert publish(folder) == 0
    assert publish(folder, "--check") == 0
    page = folder / store.PAGE_NAME
    text = page.read_text(encoding="utf-8")
    capsys.readouterr()

    page.write_text(text.replace("35.9 s", "25.9 s\x1b[31m"), encoding="utf-8")
    assert publish(folder, "--check") == 1
    standing, line = capsys.readouterr().out.splitlines()
    assert "25.9 s" in standing
    assert re.match(r".*results/README\.md:\d+: \| `\w{8}` \| 25\.9 s .* -> \| .* 35\.9 s", line)
    assert "\x1b" not in line

    page.write_text(text + "one more\n", encoding="utf-8")
    assert publish(folder, "--check") == 1
    assert capsys.readouterr().out.endswith("not in the records: one more\n")

    page.write_text("".join(text.splitlines(keepends=True)[:-1]), encoding="utf-8")
    assert publish(folder, "--check") == 1
    assert ": missing: - `" in capsys.readouterr().out

    page.unlink()
    assert publish(folder, "--check") == 1
    assert "cannot be read (No such file or directory)" in capsys.readouterr().out
    assert not page.exists(), "a check writes nothing"

    assert publish(folder) == 0
    assert page.read_text(encoding="utf-8") == text
    capsys.readouterr()
    (folder / store.CHART_NAME).write_text("<svg/>\n", encoding="utf-8")
    assert publish(folder, "--check") == 1
    assert "times.svg:1: <svg/> -> <svg " in capsys.readouterr().out


@pytest.mark.slow
def test_what_cannot_be_read_is_said_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(saved(tmp_path, make_benchmark()))
    (folder / "torn.json").write_text('{"schema_version": 1, "run')
    assert publish(folder) == 1
    assert "torn.json: Invalid JSON" in capsys.readouterr().err
    assert len(cells((folder / store.PAGE_NAME).read_text(encoding="utf-8"))) == 1


@pytest.mark.slow
def test_the_page_above_has_a_row_a_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slow, closed_only = {"device_name": "Slow | one"}, {"device_name": "Closed only"}
    seconds = (1.0, 1.1, 1.2, 1.3, 1.4)
    fast = make_benchmark(seconds, setup={"device_name": "Fast"})
    in_closed = make_benchmark(seconds, setup={"device_name": "Fast"}, division="closed")
    saved(Path("results"), [*fast, *in_closed])
    saved(Path("results"), make_benchmark(setup=slow)[:2])
    saved(Path("results"), make_benchmark(setup=closed_only, division="closed"))
    page = Path("README.md")
    page.write_text(f"# Mine\n\n{START}old\n{END}\nThe end\n", encoding="utf-8")
    assert publish("results") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "README.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Mine\n\n{START}\n| machine | to 99.4 % | a success |")
    assert text.endswith(f" |\n\n{END}\nThe end\n")
    fast_row, slow_row, closed_row = cells(text, "machine")
    assert fast_row["machine"].startswith("<code>Fast</code>")
    assert fast_row["reached"] == "5/5"
    assert fast_row["closed division"].split(" †")[0] == fast_row["to 99.4 %"] != "–"
    assert slow_row["machine"].startswith("<code>Slow | one</code> <strong>!</strong>")
    assert slow_row["closed division"] == "–"
    assert closed_row["machine"] == "<code>Closed only</code>"
    assert closed_row["closed division"] != "–"
    assert {closed_row[name] for name in ("to 99.4 %", "a success", "reached", "images/s")} == {"–"}
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert publish("results", "--check") == 0

    page.write_text(text.replace("`Fast`", "`Fastest`"), encoding="utf-8")
    assert publish("results", "--check") == 1
    assert re.match(r"README\.md:\d+: .*Fastest.* -> .*Fast", capsys.readouterr().out)
    assert "Fastest" in page.read_text(encoding="utf-8"), "a check writes nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "content"),
    [
        ("results", b"no table\n"),
        ("results", START.encode()),
        ("results", b"\xff" + START.encode() + END.encode()),
        ("others", START.encode() + END.encode()),
    ],
)
def test_another_page_above_is_left_alone(folder: str, content: bytes, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_bytes(content)
    assert publish(saved(tmp_path / folder, make_benchmark())) == 0
    assert page.read_bytes() == content


def test_nothing_to_publish_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(tmp_path / "nowhere") == 2
    assert publish(tmp_path) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "--results-dir" in first
    assert "publish yours by name" in second


@pytest.mark.slow
def test_own_records_are_published_by_name_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    saved(results, make_benchmark(label="theirs"))
    saved(results / "local", make_benchmark((9.4, 9.5, 9.7), label="mine"))
    assert publish(results) == 0
    page = results / store.PAGE_NAME
    assert "mine" not in page.read_text(encoding="utf-8")

    [own] = (results / "local").iterdir()
    (own / "noted.plan").write_text("{}")
    assert main(["publish", str(own), "--results-dir", str(results)]) == 0
    assert "mine" in page.read_text(encoding="utf-8")
    assert (results / own.name / "noted.plan").read_text() == "{}"
    assert publish(results, "--check") == 0
    assert main(["publish", str(own), "--results-dir", str(results)]) == 0, "once more"

    first = next(own.glob("*.json"))
    copy = results / own.name / first.name
    copy.write_text(copy.read_text().replace("mine", "ours"))
    capsys.readouterr()
    assert main(["publish", str(own), "--results-dir", str(results)]) == 2
    assert "records are never replaced" in capsys.readouterr().err
    assert main(["publish", str(own), "--results-dir", str(results), "--check"]) == 2


@pytest.mark.slow
def test_plans_of_sweeps_beside_the_folders_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the shell writes out ``results/local/*`` after a sweep."""
    results = tmp_path / "results"
    saved(results / "local", make_benchmark(label="mine"))
    (results / "local" / "sweep.sweep").write_text("{}\n")
    paths = [str(path) for path in sorted((results / "local").iterdir())]
    assert len(paths) == 2
    assert main(["publish", *paths, "--results-dir", str(results)]) == 0
    assert "mine" in (results / store.PAGE_NAME).read_text(encoding="utf-8")
    assert not list(results.glob("*.sweep"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("what", ["link", "folder", "file", "sweep", "empty"])
def test_only_folders_of_records_are_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    own = tmp_path / "own"
    saved(own, make_benchmark())
    [folder] = own.iterdir()
    name = folder
    match what:
        case "link":
            (folder / "notes.txt").symlink_to("/etc/hostname")
        case "folder":
            (folder / "inside").mkdir()
        case "file":
            name = next(folder.glob("*.json"))
        case "sweep":
            name = own / "sweep.sweep"
            name.touch()
        case "empty":
            name = tmp_path / "nothing"
            name.mkdir()
    results = tmp_path / "results"
    results.mkdir()
    assert main(["publish", str(name), "--results-dir", str(results)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(name) in line
    assert not list(results.iterdir())


@pytest.mark.slow
def test_tables_are_by_division_and_device_and_the_fastest_is_first(tmp_path: Path) -> None:
    benchmarks: tuple[tuple[tuple[float, ...], dict[str, Any]], ...] = (
        ((9.4, 9.5, 9.7), {"label": "slow"}),
        ((6.4, 6.5, 6.7), {"label": "quick"}),
        ((0.4, 0.5, 0.7), {"label": "gpu", "setup": {"device": "cuda"}}),
        ((1.4, 1.5, 1.7), {"label": "easy", "protocol": {"target_accuracy": 0.98}}),
        ((7.4, 7.5, 7.7), {"label": "plain", "division": "closed"}),
    )
    for seconds, overrides in benchmarks:
        protocol = {"version": PROTOCOL_VERSION, **overrides.pop("protocol", {})}
        saved(tmp_path, make_benchmark(seconds, protocol=protocol, **overrides))
    never = make_benchmark(
        (5.0, 5.0, 5.0), label="never", accuracies=[0.9], protocol={"version": PROTOCOL_VERSION}
    )
    saved(tmp_path, never)
    assert publish(tmp_path) == 0
    page = (tmp_path / store.PAGE_NAME).read_text(encoding="utf-8")
    assert re.findall(r"^###? (.*)", page, re.MULTILINE) == [
        "Open division, one row a machine",
        "Closed division, one row a machine",
        DEVICES,
        "Every benchmark",
        "Closed division, CPU",
        "Open division, CPU, to 98 %",
        "Open division, CPU",
        "Open division, CUDA",
    ]
    labels = [re.sub("</?code>", "", row["label"]) for row in cells(page)]
    assert labels == ["plain", "easy", "quick", "slow", "never", "gpu"]


@pytest.mark.slow
def test_rows_of_an_older_protocol_have_a_table_of_their_own_unless_nothing_changed(
    tmp_path: Path,
) -> None:
    """One process in the closed division, and one evaluation, are measured as ever."""
    once: dict[str, Any] = {"accuracies": [0.995]}
    rows: dict[str, dict[str, Any]] = {
        "alone": {"division": "closed"},
        "shared": {
            "division": "closed",
            "setup": {"processes": 2},
            "recipe": {"norm_batch_size": 0},
        },
        "once": once,
        "new": {"protocol": {"version": PROTOCOL_VERSION}, **once},
        "often": {},
    }
    for label, overrides in rows.items():
        saved(tmp_path, make_benchmark(label=label, **overrides))
    assert publish(tmp_path) == 0
    page = (tmp_path / store.PAGE_NAME).read_text(encoding="utf-8")
    tables = [re.sub("</?code>", "", part) for part in page.split("\n### ")[1:]]
    labels = {
        part.splitlines()[0]: re.findall(r"`(\w+)` \|$", part, re.MULTILINE) for part in tables
    }
    assert {title: sorted(names) for title, names in labels.items()} == {
        "Closed division, CPU": ["alone"],
        "Closed division, CPU, protocol 1": ["shared"],
        "Open division, CPU": ["new", "once"],
        "Open division, CPU, protocol 1": ["often"],
    }
    notes = {
        re.sub("</?code>", "", row["label"]): "protocol 1" in row["set-up"] for row in cells(page)
    }
    assert [label for label, old in notes.items() if not old] == ["new"]


def test_seconds_a_success_stand_beside_the_median(committed: Path) -> None:
    """Of 20 runs 5 missed: the median does not say so, what a success costs does."""
    records = store.read_records([committed / "results" / "intel-xeon-2-cores"]).records
    rows = cells(results_page.render_page(find_entries(records, committed / "results")))
    [claim] = [row for row in rows if row["id"] == "<code>55d4e4a2</code>"]
    assert claim["to target"] == "6.26 s (5.94–6.74)"
    assert claim["a success"] == "8.10 s (6.8–11.5)"
    assert list(claim)[1:3] == ["to target", "a success"]


@pytest.mark.slow
def test_command_seeds_and_commit_stand_below_the_table(tmp_path: Path) -> None:
    for seed in (4, 3, 5):
        command = ["bench/run.py", "--runs", "1", "--seed", str(seed), "--label", "a b"]
        run = make_record(benchmark_id=f"{seed:032x}", seed=seed, command=command, label="a b")
        saved(tmp_path, [run])
    assert publish(tmp_path) == 0
    page = (tmp_path / store.PAGE_NAME).read_text(encoding="utf-8")
    assert len(cells(page)) == 1, "runs that differ in their seed alone are one row"
    [line] = [line for line in page.splitlines() if line.startswith("- `")]
    assert "in [`amd-epyc-2-cores`](amd-epyc-2-cores/): " in line
    assert "--label 'a b'` and so on, seeds 3 to 5, commit `0123456789abcdef" in line


@pytest.mark.slow
@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("`|\\*_<>[]()!&#@ ax"))
def test_text_of_a_record_is_text_whatever_it_is(label: str) -> None:
    """As markdown-it renders it: one cell of code, holding what was written, obeying nothing."""
    entry = find_entries([(Path("m/x.json"), make_record(label=label))], Path())
    [row] = cells(results_page.render_page(entry))
    shown = row["label"].removeprefix("<code>").removesuffix("</code>")
    assert "<" not in shown
    for escaped, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(escaped, letter)
    expected = re.sub(r"\\(?=\|)", r"\\ ", printable(label))
    assert " ".join(shown.split()) == " ".join(expected.split())


@pytest.mark.slow
def test_a_hostile_device_stays_inside_the_picture(tmp_path: Path) -> None:
    name = "</text><script>alert(1)</script>"
    runs = make_benchmark(setup={"device_name": name}, recipe={"name": "<b>&amp;"})
    assert publish(saved(tmp_path, runs)) == 0
    picture = (tmp_path / store.CHART_NAME).read_text(encoding="utf-8")
    assert "<script" not in picture
    assert "<b>" not in picture
    assert picture.count("<circle") == 1


def test_a_picture_of_nothing_is_a_picture(tmp_path: Path) -> None:
    assert publish(saved(tmp_path, make_benchmark(accuracies=[0.5]))) == 0
    assert "<circle" not in (tmp_path / store.CHART_NAME).read_text(encoding="utf-8")
