"""The figures of a page and of --plots, without a browser."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.analysis import benchmarks
from bench.analysis.metrics import images_per_second
from bench.cli import main
from bench.records import sidecars
from bench.records.sidecars import PeakFlops
from bench.report.html import captions, curve_figures, drawing, figures
from bench.report.html.figure_result import DrawnFigure, MissingFigure
from bench.report.html.series import setup_series
from mnist_cnn.model import MnistCnn
from mnist_cnn.summary import training_flops
from tests.factories import make_benchmark, make_record, noisy_runs, saved
from tests.report.pages import (
    outcome,
    series_of,
)


def test_every_figure_is_drawn_or_says_why_not() -> None:
    drawn = figures.draw_figures(series_of([*make_benchmark(), *noisy_runs(1, label="noisy")]))
    titles = {one.title: type(one) for one in drawn}
    assert titles == {
        "Time to 99.4 %": DrawnFigure,
        "Accuracy over time": DrawnFigure,
        "Images needed × seconds per image": DrawnFigure,
        "Throughput": DrawnFigure,
        "Images per second, by commit": MissingFigure,
        "Where each second went": DrawnFigure,
        "Time to target, by the target": DrawnFigure,
        "Scaling efficiency": MissingFigure,
        "Fraction of peak": MissingFigure,
    }
    missed = figures.draw_figures(series_of(make_benchmark(accuracies=[0.98])))
    reasons = {one.title: one.reason for one in missed if isinstance(one, MissingFigure)}
    assert reasons["Time to 99.4 %"] == "no set-up reached the target in half of its runs"
    assert "was evaluated at least 5 times per run" in reasons["Time to target, by the target"]
    nothing = figures.draw_figures(
        series_of([make_record(status="failed", reason="x", accuracies=[])])
    )
    assert all(isinstance(one, MissingFigure) for one in nothing)


def test_every_axis_of_numbers_has_a_name_and_throughput_is_logarithmic() -> None:
    runs = [
        *make_benchmark((10.0, 10.0, 10.0), setup={"processes": 1, "threads": 1}),
        *make_benchmark((6.5, 6.5, 6.5), setup={"processes": 2, "threads": 1}),
        *noisy_runs(0, environment={"commit": "0" * 40}, label="a"),
        *noisy_runs(1, environment={"commit": "1" * 40}, label="a"),
    ]
    drawn = [one for one in figures.draw_figures(series_of(runs)) if isinstance(one, DrawnFigure)]
    assert len(drawn) == 8, "all but the fraction of the peak, which is not recorded"
    for one in drawn:
        (axes,) = one.figure.axes
        assert axes.get_xlabel(), one.title
        # Where the vertical axis has no numbers, its rows are set-ups, which have their names.
        assert axes.get_title(loc="left") or not axes.get_yticklabels(), one.title
    (throughput,) = (one for one in drawn if one.name == "throughput")
    assert throughput.figure.axes[0].get_xscale() == "log"


def test_the_history_names_the_commit_that_changed_the_speed() -> None:
    runs = [
        run.model_copy(update={"started_at": run.started_at + timedelta(days=day)})
        for day, slower in enumerate((1.0, 1.0, 1.5))
        for run in noisy_runs(day, slower=slower, environment={"commit": f"{day}" * 40})
    ]
    drawn = outcome(runs, "Images per second, by commit")
    assert isinstance(drawn, DrawnFigure)
    first, second, third = drawn.description.partition(": ")[2].split("; ")
    assert (first[:7], second[:7], third[:7]) == ("0" * 7, "1" * 7, "2" * 7)
    assert "times" not in first + second
    assert "0.67 times (0.66 to 0.6" in third
    few = outcome(make_benchmark(), "Images per second, by commit")
    assert isinstance(few, MissingFigure)
    assert few.reason == "no set-up was measured at two commits of one machine"


def test_of_many_commits_the_one_that_changed_the_speed_has_its_name_on_the_axis() -> None:
    runs = [
        run.model_copy(update={"started_at": run.started_at + timedelta(days=day)})
        for day in range(20)
        for run in noisy_runs(
            day, slower=1.0 if day < 13 else 1.5, environment={"commit": f"{day:02x}" * 20}
        )
    ]
    drawn = outcome(runs, "Images per second, by commit")
    assert isinstance(drawn, DrawnFigure)
    (axes,) = drawn.figure.axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert "0d0d0d0" in names
    assert len(names) <= 8
    places = list(axes.get_xticks())
    assert all(later - place >= 3 for place, later in pairwise(places)), "none covers another"


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
    said = "12 of 15 set-ups: first the fastest of each machine, then others; the table has all."
    assert said in drawn.caption


@pytest.mark.slow
def test_of_too_many_set_ups_each_machine_has_one() -> None:
    runs = [
        run
        for n in range(captions.MOST_ROWS + 3)
        for run in make_benchmark((5.0 + n,) * 3, label=f"{n}")
    ]
    slow = make_benchmark((99.0,) * 3, setup={"device_name": "A slow machine"})
    drawn = outcome([*runs, *slow], "Time to 99.4 %")
    assert isinstance(drawn, DrawnFigure)
    assert "16 fast, 1 process, 2 threads, bf16 (A slow machine)" in drawn.description
    assert drawn.description.count(";") == captions.MOST_ROWS - 1


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


@pytest.mark.slow
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
