"""All export formats: where they are written, and any records they are given."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from bench.cli import main
from bench.records.model import LARGEST_INTEGER, LONGEST_SECONDS
from bench.report.formats.bencher import to_bmf
from bench.report.formats.github_action import to_github_action_bigger, to_github_action_smaller
from bench.report.formats.mllog import log_of
from bench.report.formats.pytest_benchmark import to_pytest_benchmark
from tests.factories import make_benchmark, make_record, saved
from tests.report.exports import DOCUMENTS, ROOT, benchmarks_of, events, loads, report


def test_a_folder_of_logs_is_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = saved(tmp_path / "r", [make_record()])
    (tmp_path / "file").write_text("x")
    for arguments, complaint in (
        ([], "one file per run: name a new folder with --output"),
        (["--output", tmp_path / "r"], "is not empty: name a new folder"),
        (["--output", tmp_path / "file"], "is a file: this format needs a folder"),
        (["--output", tmp_path / "file" / "x"], "cannot write"),
    ):
        assert report("mllog", results, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (error,) = printed.err.splitlines()
        assert complaint in error


@pytest.mark.parametrize("to", [*DOCUMENTS, "json", "csv"])
def test_a_file_holds_what_would_be_printed(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = saved(tmp_path / "r", make_benchmark())
    assert report(to, results) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    path = tmp_path / "out"
    for _ in range(2):  # a file that is there is written anew
        assert report(to, results, "--output", path) == 0
        assert capsys.readouterr() == ("", "")
        assert path.read_bytes().decode() == printed.out
    for wrong, complaint in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "cannot write")):
        assert report(to, results, "--output", wrong) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--output", "x"], "--output is for other formats: name one with --to"),
        (["--to", "bmf", "--per", "run"], "leave --per out"),
        (["--to", "bmf", "--clocks"], "--clocks is for the terminal"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", saved(tmp_path / "r", [make_record()]), *arguments]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=150)
def test_every_record_that_is_read_can_be_exported(data: st.DataObject) -> None:
    """Numbers at the ends of their ranges; what JSON cannot hold must not be written."""
    spans = st.floats(0, LONGEST_SECONDS)
    run = make_record(
        init_seconds=data.draw(spans),
        eval_seconds=data.draw(spans),
        samples=data.draw(st.integers(0, LARGEST_INTEGER // 10)),
        seed=data.draw(st.integers(0, LARGEST_INTEGER)),
        recipe={"batch_size": data.draw(st.sampled_from([None, "x", True, 2**64, 0.5, []]))},
    )
    assert loads(to_bmf(benchmarks_of([run])).text)
    assert loads(to_github_action_smaller(benchmarks_of([run])).text) is not None
    assert loads(to_github_action_bigger(benchmarks_of([run])).text)
    assert loads(to_pytest_benchmark(benchmarks_of([run])).text)
    text = log_of(run)
    assert text is None or events(text)


@pytest.mark.slow
def test_the_commands_of_the_document_do_what_it_says(
    committed_results: Path, tmp_path: Path
) -> None:
    """All of them, one after the other, on the committed records."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/interop.md").read_text(), re.DOTALL)
    (tmp_path / "results").symlink_to(committed_results / "results")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -eu\n" + "".join(blocks)
    assert {"mnist-bench", "python", "pytest-benchmark"} <= set(shlex.split(script, comments=True))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("SUCCESS") == 2
    assert "benchmark 'time_to_target_seconds'" in done.stdout
