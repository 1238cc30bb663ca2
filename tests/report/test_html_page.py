"""`mnist-bench report --to html`: what is in the file, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from bench.cli import main
from bench.records import store
from bench.records.schema import RunRecord
from bench.records.store import UnreadableFile
from tests.factories import ZEN_4, ZEN_5, make_benchmark, make_record, records, saved
from tests.report.pages import (
    HOSTILE,
    ROOT,
    Page,
    mistaken,
    page_of,
)


@pytest.mark.slow
def test_the_committed_results_are_one_file_that_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    assert main(["report", str(ROOT / "results"), "--to", "html", "--output", str(output)]) == 0
    assert capsys.readouterr() == ("", "")
    page = Page(output.read_text(encoding="utf-8"))
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")} | (
            {"style", "srcset", "action"} & set(attributes)
        ), tag
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))


def test_the_policy_admits_this_style_and_this_script_alone() -> None:
    page = Page(page_of(make_benchmark()))
    [policy] = [
        attributes["content"] or ""
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    sums = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in page.sources.items()
    }
    assert rules == {
        "default-src": "'none'",
        "style-src": sums["style"],
        "script-src": sums["script"],
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_hostile_text_is_text(tmp_path: Path) -> None:
    environment = {"cpu": HOSTILE, "torch": HOSTILE, "packages": {HOSTILE: HOSTILE}}
    runs = [
        *make_benchmark(
            label=HOSTILE,
            setup={"device_name": HOSTILE, "environment": {HOSTILE: HOSTILE}},
            environment=environment,
        ),
        make_record(status="failed", reason=HOSTILE, benchmark_id="c" * 32, label=HOSTILE[::-1]),
    ]
    text = page_of(runs, [UnreadableFile(Path(HOSTILE), HOSTILE)])
    page = Page(text)
    assert "alert(1)" in page.text
    assert "alert(1)" not in page.sources["script"] + page.sources["style"]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert all(set(attributes) & {"src", "onerror"} == set() for _, attributes in page.tags)
    assert "\x1b" not in text
    assert "{{ 7 * 7 }}" in page.text
    assert "$x^2$" in page.text


@pytest.mark.slow
@given(st.lists(records(), min_size=1, max_size=3, unique_by=lambda record: record.run_id))
@settings(max_examples=10)
def test_a_page_of_any_records_is_whole(runs: list[RunRecord]) -> None:
    text = page_of(runs)
    assert text.endswith("</html>\n") or text.endswith("</html>")
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert text.encode()


SECONDS = st.sampled_from([0.0, 1e-9, 1e-3, 5.0, 5.001, 1e6, 1e9]) | st.floats(0, 100)


@pytest.mark.slow
@given(
    st.lists(
        st.builds(
            make_record,
            accuracies=st.lists(st.sampled_from([0, 0.5, 0.98, 0.994, 0.9999, 1.0]), max_size=7),
            benchmark_id=st.sampled_from(["a" * 32, "b" * 32]),
            init_seconds=SECONDS,
            train_seconds=SECONDS,
            eval_seconds=SECONDS,
            samples=st.sampled_from([1, 60_000, 10**12]),
            setup=st.sampled_from([{"processes": n, "threads": 1} for n in (1, 2, 1024)]),
        ),
        min_size=1,
        max_size=5,
    )
)
@example([make_record(train_seconds=1e-296, samples=10**12)])
@settings(max_examples=15)
def test_figures_are_drawn_of_any_numbers(runs: list[RunRecord]) -> None:
    """Matplotlib warns where a scale has no room, and warnings are errors here."""
    text = page_of(runs)
    assert text.count("<figure id=") + text.count("<li><strong>") == 9  # drawn, or said why not


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes() -> None:
    runs = make_benchmark()
    assert page_of(runs) == page_of(runs)


def test_seconds_a_success_stand_beside_every_median_time(tmp_path: Path) -> None:
    """In the table of set-ups and in the numbers at the head of the page."""
    folder = str(ROOT / "results" / "intel-xeon-2-cores")
    output = tmp_path / "report.html"
    assert main(["report", folder, "--to", "html", "--output", str(output)]) == 0
    page = output.read_text(encoding="utf-8")
    assert ">6.26 s<small>5.94–6.74</small>" in page
    assert ">8.10 s<small>6.8–11.5</small>" in page
    assert "15/20 runs, 5.94–6.74, 8.10 s a success" in page


def test_the_share_that_reached_the_target_is_of_runs_that_could() -> None:
    """A run of one epoch measures images a second."""
    whole = make_benchmark()
    short = make_record(accuracies=[0.98], recipe={"epochs": 1}, benchmark_id="c" * 32)
    reached = (
        f"<strong>{len(whole)} of {len(whole)}</strong><span>completed runs of all set-ups with"
    )
    assert reached in page_of([*whole, short])
    assert "<dt>Reached" not in page_of([short])


def test_machines_of_one_name_are_counted_apart() -> None:
    zen_4 = make_benchmark(environment={"processor": ZEN_4})
    zen_5 = make_benchmark(environment={"processor": ZEN_5}, label="other")
    assert " on 1 machine, " in page_of(zen_4)
    assert " on 2 machines, " in page_of([*zen_4, *zen_5])


def test_every_run_is_there_with_its_record(tmp_path: Path) -> None:
    runs = make_benchmark()
    paths = [store.save_record(run, tmp_path / "results") for run in runs]
    output = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "results"), "--to", "html", "--output", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    for run, path in zip(runs, paths, strict=True):
        assert path.name in text
        assert run.run_id in text
    assert 'href="#run-of-1"' in text
    assert 'id="run-of-1"' in text


@pytest.mark.slow
def test_what_could_not_be_read_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, make_benchmark())
    (tmp_path / "torn.json").write_text('{"schema_version": 1, "run')
    assert main(["report", str(tmp_path), "--to", "html"]) == 0
    printed = capsys.readouterr()
    assert "torn.json" in printed.err
    page = Page(printed.out)
    assert "Not read" in page.text
    assert re.search(r"torn\.json: Invalid JSON", page.text)
    assert "Not read" not in Page(page_of(make_benchmark())).text


def test_tables_have_captions_and_headers_with_a_scope() -> None:
    tags = Page(page_of(make_benchmark())).tags
    tables = [tag for tag, _ in tags if tag == "table"]
    assert len(tables) == len([tag for tag, _ in tags if tag == "caption"]) == 4
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_json_and_csv_go_to_a_file_too(tmp_path: Path) -> None:
    where, output = saved(tmp_path / "results", make_benchmark()), tmp_path / "rows.json"
    assert main(["report", where, "--to", "json", "--output", str(output)]) == 0
    assert len(json.loads(output.read_text())) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--to", "html", "--per", "run"), "leave --per out"),
        (("--to", "html", "--clocks"), "leave --to out"),
        (("--output", "x.txt"), "name one with --to"),
        (("--to", "html", "--output", "."), "is a folder: name a file in it"),
        (("--to", "html", "--output", "no/such/x.html"), "cannot write no/such/x.html"),
    ],
)
def test_options_that_make_no_page_are_refused_in_a_line(
    options: tuple[str, ...], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", saved(tmp_path, make_benchmark()), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [error] = printed.err.splitlines()
    assert complaint in error


@pytest.mark.slow
def test_a_page_needs_no_torch_and_no_data_frames(tmp_path: Path) -> None:
    script = """
import sys
from bench.cli import main
assert main(["report", sys.argv[1], "--to", "html", "--output", sys.argv[2]]) == 0
heavy = {"torch", "pandas", "accelerate", "torchvision", "scipy", "rich"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    where = saved(tmp_path / "results", [mistaken([247], [2])])
    done = subprocess.run(
        [sys.executable, "-c", script, where, str(tmp_path / "page.html")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
