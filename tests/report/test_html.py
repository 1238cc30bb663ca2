"""`mnist-bench report --to html` and --plots: what is in the file, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings, strategies as st

from bench.analysis import benchmarks
from bench.analysis.metrics import images_per_second
from bench.cli import main
from bench.records import sidecars, store
from bench.records.schema import RunRecord
from bench.records.sidecars import PeakFlops
from bench.records.store import UnreadableFile
from bench.report.html import captions, curve_figures, drawing, figures
from bench.report.html.environments import environment_table, ranges
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.misclassified import Digits, misclassified_digits
from bench.report.html.page import to_html
from bench.report.html.series import COLOURS, SetupSeries, setup_series
from mnist_cnn.data import files
from mnist_cnn.model import MnistCnn
from mnist_cnn.summary import training_flops
from tests.factories import make_benchmark, make_record, noisy_runs, records, saved

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n\x1b[31m$x^2$ {{ 7 * 7 }} 中 &amp;"
)
MNIST_SUMS = {file.name: file.sha256 for file in files.FILES}


class Page(HTMLParser):
    """What a browser would find: every start tag, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.sources: dict[str, str] = {}
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_data(self, data: str) -> None:
        if self._within in ("style", "script"):
            self.sources[self._within] = self.sources.get(self._within, "") + data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


def of(runs: Sequence[RunRecord]) -> list[SetupSeries]:
    return setup_series(benchmarks.group_runs((None, run) for run in runs))


def page_of(runs: Sequence[RunRecord], problems: Sequence[UnreadableFile] = ()) -> str:
    found = of(runs)
    return to_html(found, figures.draw_figures(found), problems)


def outcome(runs: Sequence[RunRecord], title: str) -> FigureResult:
    return next(one for one in figures.draw_figures(of(runs)) if one.title == title)


def mistaken(images: list[int], predicted: list[int], **overrides: Any) -> RunRecord:
    return make_record(
        accuracies=[1 - len(images) / 10_000],
        mistakes={"images": images, "predicted": predicted},
        dataset=MNIST_SUMS,
        **overrides,
    )


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


@given(st.lists(records(), min_size=1, max_size=3, unique_by=lambda record: record.run_id))
@settings(max_examples=10)
def test_a_page_of_any_records_is_whole(runs: list[RunRecord]) -> None:
    text = page_of(runs)
    assert text.endswith("</html>\n") or text.endswith("</html>")
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert text.encode()


SECONDS = st.sampled_from([0.0, 1e-9, 1e-3, 5.0, 5.001, 1e6, 1e12]) | st.floats(0, 100)


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
    assert text.count("<figure id=") + text.count("<li><strong>") == 8  # drawn, or said why not


def test_the_same_records_give_the_same_bytes() -> None:
    runs = make_benchmark()
    assert page_of(runs) == page_of(runs)


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
    assert len(tables) == len([tag for tag, _ in tags if tag == "caption"]) == 3
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))


# --- Set-ups


def test_runs_of_one_set_up_are_pooled_and_those_of_another_folder_are_not(tmp_path: Path) -> None:
    """As `ab` makes them: a benchmark each."""
    singles = [make_record(benchmark_id=f"{n:032}", train_seconds=6.0 + n / 10) for n in range(6)]
    for number, record in enumerate(singles):
        store.save_record(record, tmp_path / ("a" if number < 4 else "b"))
    found = setup_series(benchmarks.group_runs(store.read_records([tmp_path]).records))
    assert [len(one.runs) for one in found] == [4, 2]
    assert [one.number for one in found] == [1, 2]
    assert len(found[0].benchmark.runs) == 4


def test_a_label_a_recipe_or_a_commit_is_another_set_up() -> None:
    runs = [
        *make_benchmark(label="a"),
        *make_benchmark(label="b"),
        *make_benchmark(label="b", recipe={"batch_size": 64}),
        *make_benchmark(label="b", environment={"commit": "f" * 40}),
    ]
    names = [one.full_name for one in of(runs)]
    assert len(names) == 4
    assert any("commit fffffff" in name for name in names)


def test_set_ups_are_numbered_from_the_fastest_those_that_missed_last() -> None:
    runs = [
        *make_benchmark((9.0, 9.1, 9.2), label="slow"),
        *make_benchmark(label="missed", accuracies=[0.98]),
        *make_benchmark((5.0, 5.1, 5.2), label="quick"),
    ]
    assert [one.detail for one in of(runs)] == ["“quick”", "“slow”", "“missed”"]


def test_of_many_set_ups_a_recipe_on_a_device_has_one_colour() -> None:
    few = of([run for n in range(COLOURS) for run in make_benchmark(label=f"{n}")])
    assert sorted(one.colour for one in few) == list(range(1, COLOURS + 1))
    many = of([run for n in range(COLOURS + 1) for run in make_benchmark(label=f"{n}")])
    assert {one.colour for one in many} == {1}
    assert {one.family for one in many} == {"fast on AMD EPYC"}


def test_missing_runs_are_not_hidden_by_pooling() -> None:
    part = make_benchmark(protocol={"runs": 5})
    [one] = of([*part, *make_benchmark()])
    assert any("some runs of this benchmark are not here" in warning for warning in one.warnings)


# --- Figures


def test_every_figure_is_drawn_or_says_why_not() -> None:
    drawn = figures.draw_figures(of([*make_benchmark(), *noisy_runs(1, label="noisy")]))
    titles = {one.title: type(one) for one in drawn}
    assert titles == {
        "Time to 99.4 %": DrawnFigure,
        "Accuracy over time": DrawnFigure,
        "Images needed × seconds per image": DrawnFigure,
        "Throughput": DrawnFigure,
        "Where each second went": DrawnFigure,
        "Time to target, by the target": DrawnFigure,
        "Scaling efficiency": MissingFigure,
        "Fraction of peak": MissingFigure,
    }
    missed = figures.draw_figures(of(make_benchmark(accuracies=[0.98])))
    reasons = {one.title: one.reason for one in missed if isinstance(one, MissingFigure)}
    assert reasons["Time to 99.4 %"] == "no set-up reached the target in half of its runs"
    assert "was evaluated at least 5 times per run" in reasons["Time to target, by the target"]
    nothing = figures.draw_figures(of([make_record(status="failed", reason="x", accuracies=[])]))
    assert all(isinstance(one, MissingFigure) for one in nothing)


def test_scaling_is_of_equal_threads_a_process() -> None:
    """Two processes of 6.5 s against one of 10: 10 / 6.5 / 2 = 77 %."""
    alone = make_benchmark((10.0, 10.0, 10.0), setup={"processes": 1, "threads": 1})
    both = make_benchmark((6.5, 6.5, 6.5), setup={"processes": 2, "threads": 1})
    drawn = outcome([*alone, *both], "Scaling efficiency")
    assert isinstance(drawn, DrawnFigure)
    assert "100 % with 1 process, 77 % with 2 processes" in drawn.description
    unequal = make_benchmark((6.5, 6.5, 6.5), setup={"processes": 2, "threads": 4})
    assert isinstance(outcome([*alone, *unequal], "Scaling efficiency"), MissingFigure)


def test_the_fraction_of_peak_is_of_the_same_device_precision_and_threads(tmp_path: Path) -> None:
    """And of what was measured last."""
    title, path = "Fraction of peak", tmp_path / "run.json"
    runs = [
        (path, run)
        for run in make_benchmark((10.0,) * 3, setup={"precision": "bf16", "threads": 2})
    ]
    drawn = next(
        one
        for one in figures.draw_figures(setup_series(benchmarks.group_runs(runs)))
        if one.title == title
    )
    assert isinstance(drawn, MissingFigure)
    of_run = runs[0][1].setup
    best = PeakFlops(
        device="cpu",
        device_name=of_run.device_name,
        precision="bf16",
        threads=2,
        flops_per_second=1e12,
        side=512,
        measured_at=datetime(2026, 11, 26, tzinfo=UTC),
        commit=None,
        torch="2.15.0",
    )
    earlier = {"measured_at": datetime(2026, 11, 25, tzinfo=UTC)}
    others: list[dict[str, object]] = [dict(earlier), {"threads": 1}, {"precision": "fp32"}]
    others.append({"device_name": "another"})
    for other in others:
        sidecars.write_sidecar(best.model_copy(update={**other, "flops_per_second": 1.0}), tmp_path)
    sidecars.write_sidecar(best, tmp_path)
    (tmp_path / "torn.peak").write_text("{")
    drawn = next(
        one
        for one in figures.draw_figures(setup_series(benchmarks.group_runs(runs)))
        if one.title == title
    )
    assert isinstance(drawn, DrawnFigure)
    rate = images_per_second(runs[0][1])
    assert rate is not None
    assert f"{100 * rate * training_flops(MnistCnn()) / 1e12:.3g} %" in drawn.description
    assert "torn.peak is not a valid measured peak" in drawn.caption


def test_the_time_to_another_target_is_read_off_the_curve() -> None:
    """Epochs of 10 s and nothing else: 98.71 % after two, 99.41 % after five."""
    runs = make_benchmark((10.0,) * 3, init_seconds=0.0, eval_seconds=0.0)
    drawn = outcome(runs, "Time to target, by the target")
    assert isinstance(drawn, DrawnFigure)
    assert "20.0 s to 98 %, 50.0 s to 99.4 %" in drawn.description


def test_of_too_many_runs_medians_are_drawn_and_the_page_says_so() -> None:
    runs = make_benchmark([6.0 + n / 1000 for n in range(curve_figures.MOST_LINES + 1)])
    drawn = outcome(runs, "Accuracy over time")
    assert isinstance(drawn, DrawnFigure)
    assert "151 runs are too many to draw" in drawn.caption
    assert len(drawn.figure.axes[0].lines) == 3  # a line, its dots, the target


@pytest.mark.slow
def test_of_too_many_set_ups_the_fastest_are_drawn_and_the_caption_says_so() -> None:
    runs = [
        run
        for n in range(captions.MOST_ROWS + 3)
        for run in make_benchmark((5.0 + n,) * 3, label=f"{n}")
    ]
    drawn = outcome(runs, "Time to 99.4 %")
    assert isinstance(drawn, DrawnFigure)
    assert "The fastest 12 of 15 set-ups; the table has all." in drawn.caption


def test_an_svg_holds_no_style_and_its_colours_are_variables() -> None:
    drawn = outcome(make_benchmark(), "Time to 99.4 %")
    assert isinstance(drawn, DrawnFigure)
    svg = drawing.to_svg(drawn.figure, "a-name", "A title", "What there is to see", alone=False)
    root = ElementTree.fromstring(svg)
    assert all("style" not in element.attrib for element in root.iter())
    assert not re.search(r"<style|#[0-9a-f]{6}|DejaVu", svg)
    assert "var(--series-1)" in svg
    assert [child.text for child in root[:2]] == ["A title", "What there is to see"]
    ids = {element.get("id") for element in root.iter()} - {None}
    assert all(name is not None and name.startswith("a-name-") for name in ids)
    for reference in re.findall(r'(?:url\(#|href="#)([^")]+)', svg):
        assert reference in ids


def test_plots_are_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = saved(tmp_path / "results", make_benchmark())
    plots = tmp_path / "plots"
    assert main(["report", where, "--plots", str(plots)]) == 0
    printed = capsys.readouterr()
    assert "3/3" in printed.out  # the table as ever
    assert "no figure 'Scaling efficiency': no recipe was measured" in printed.err
    names = {path.name for path in plots.iterdir()}
    assert {"time-to-target.svg", "time-to-target.png"} <= names
    for path in plots.glob("*.svg"):
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        style = next(element for element in root if element.tag.endswith("style"))
        assert "prefers-color-scheme: dark" in (style.text or "")
        assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    before = {path.name: path.read_bytes() for path in plots.iterdir()}
    assert main(["report", where, "--plots", str(plots)]) == 0
    assert before == {path.name: path.read_bytes() for path in plots.iterdir()}


def test_plots_that_cannot_be_written_are_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = saved(tmp_path / "results", make_benchmark())
    (tmp_path / "file").write_text("")
    assert main(["report", where, "--plots", str(tmp_path / "file")]) == 2
    assert "cannot write figures to" in capsys.readouterr().err


# --- Misclassified digits


@pytest.mark.usefixtures("mnist_data_dir")
def test_the_digits_are_those_that_most_runs_took_for_others() -> None:
    """Image 247 of the test set is a 4, image 582 an 8."""
    runs = [
        mistaken([247, 582], [2, 2]),
        mistaken([582], [2]),
        mistaken([247, 582], [6, 3]),
        make_record(),  # says nothing
        mistaken([9_999], [0], recipe={"evaluation_split": "validation"}),
        mistaken([9_999], [0], status="interrupted", reason="x"),
    ]
    digits = misclassified_digits(runs)
    assert isinstance(digits, Digits)
    assert (digits.runs, digits.wrong) == (3, 2)
    assert [(d.index, d.truth, d.taken_for) for d in digits.shown] == [
        (582, 8, ((2, 2), (3, 1))),
        (247, 4, ((2, 1), (6, 1))),
    ]
    assert digits.confusions[0] == (8, 2, 2)
    page = Page(page_of(runs))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [picture["alt"] for picture in pictures] == [
        "Test image 582, a 8",
        "Test image 247, a 4",
    ]


def test_the_page_says_why_there_are_no_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "those of schema 5 and later do" in Page(page_of(make_benchmark())).text
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path))
    assert "MNIST is not in the cache" in Page(page_of([mistaken([247], [2])])).text


# --- Machines and software


def test_what_differs_between_machines_stands_first_and_is_marked() -> None:
    runs = [
        *make_benchmark(label="a"),
        *make_benchmark(label="b"),
        *make_benchmark(label="c", environment={"torch": "2.16.0"}),
    ]
    table = environment_table(of(runs))
    assert table.columns == ("1, 2", "3")
    first, second = table.facts[:2]
    assert (first.name, first.values, first.differs) == ("torch", ("2.15.0", "2.16.0"), True)
    assert not second.differs
    page = Page(page_of(runs))
    assert [tag for tag, a in page.tags if a.get("class") == "differs"] == ["td"]


@given(st.sets(st.integers(1, 40), min_size=1))
def test_numbers_are_written_as_ranges(numbers: set[int]) -> None:
    written = ranges(sorted(numbers))
    read: set[int] = set()
    for part in written.split(", "):
        first, _, last = part.partition("–")
        read |= set(range(int(first), int(last or first) + 1))
    assert read == numbers


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
