"""The device number and the code number: in `report`, on the published page, in the HTML report."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bench.analysis.device_numbers import CODE_COMMAND, DEVICE_COMMAND
from bench.cli import main
from bench.records.protocol import PROTOCOL_VERSION
from bench.records.schema import RunRecord
from bench.text import DIFFERENT
from mnist_cnn.recipe import REFERENCE
from tests.factories import ZEN_4, ZEN_5, make_benchmark, saved

LEGEND = f"{DIFFERENT} other kernels than the first row's"
DAY = timedelta(days=1)
AMX = {"kernels": "amx", "precision": "bf16"}


def reference(
    seconds: float, processor: dict[str, Any] = ZEN_4, epochs: int = 1, **fields: Any
) -> list[RunRecord]:
    """Three runs of the reference recipe, whose epochs train that many seconds."""
    fields = {
        "division": "open" if epochs != REFERENCE.epochs else "closed",
        "recipe": REFERENCE.with_epochs(epochs).values(),
        "protocol": {"version": PROTOCOL_VERSION},
        "accuracies": [0.98] * epochs,
    } | fields
    return make_benchmark([seconds] * 3, environment={"processor": processor}, **fields)


def fast(processor: dict[str, Any], seconds: float = 6.5, **fields: Any) -> list[RunRecord]:
    return make_benchmark([seconds] * 3, environment={"processor": processor}, **fields)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Zen 4 with both numbers, and a Zen 5 of which nothing but `fast` was measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    results = tmp_path / "results"
    first = fast(ZEN_4, setup=AMX)
    # A report's rows are in order of time.
    saved(results, [r.model_copy(update={"started_at": r.started_at - DAY}) for r in first])
    saved(results, fast(ZEN_5, 7.5))
    saved(results, reference(60.0))  # 1,000 images a second
    saved(results, reference(40.0, setup={"precision": "fp32", "threads": 1}))  # 1,500
    saved(results, reference(6.0, epochs=20, setup=AMX))  # 10,000
    return results


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["report", "--per", "benchmark", *words]) == 0
    return capsys.readouterr().out


def machine_rows(output: str) -> list[str]:
    """The lines of the table of machines, without its heading."""
    table = output[output.index("machine ") :]
    return table.split("Training images a second")[0].splitlines()[2:]


def test_each_machine_has_both_numbers_or_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shown(capsys, str(folder))
    zen_4, how, zen_5 = machine_rows(output)
    assert re.match(r"AMD EPYC \(zen4 \w+\) +1,500 +10,000 *$", zen_4)
    assert "fp32 torch, 1 process, 1 thread" in how
    assert "bf16 amx, 1 process, 2 threads" in how
    assert re.match(r"AMD EPYC \(zen5 \w+\) +not measured +not measured *$", zen_5)
    assert f"A device number that is not measured: {DEVICE_COMMAND}" in output
    assert f"A code number that is not measured, or torch's own: {CODE_COMMAND}" in output
    assert "By name" not in output


def test_rows_of_other_kernels_than_the_first_are_marked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder, fast(ZEN_5, 5.5, setup={"kernels": "inductor"}, label="fused"))
    output = shown(capsys, str(folder), "--filter", "recipe == 'fast'")
    assert LEGEND in output
    table = output[output.index("recipe ") :].split("Medians")[0]
    marked = [line for line in table.splitlines() if DIFFERENT in line]
    assert len(marked) == 2
    assert all("amx" not in line for line in marked), "the first row's"
    alike = shown(capsys, str(folder), "--filter", "recipe == 'fast' and kernels != 'amx'")
    assert DIFFERENT not in alike, "torch's compiler fuses torch's operators"


@pytest.mark.parametrize("width", ["80", "140"])
def test_a_selection_keeps_the_numbers_of_its_machines(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: str,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    output = shown(capsys, str(folder), "--filter", "recipe == 'fast'")
    assert any(re.search(r"1,500 +10,000", row) for row in machine_rows(output))
    assert all(len(line) <= int(width) for line in output.splitlines())


def test_the_protocol_has_the_commands() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text("utf-8")
    assert f"{DEVICE_COMMAND}\n{CODE_COMMAND}\n" in text


def test_one_machine_is_compared_with_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shown(capsys, str(folder), "--filter", "threads == 1")
    assert "device number" not in output


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": REFERENCE.with_epochs(1).with_batch_size(64).values()},
        {"recipe": {**REFERENCE.with_epochs(1).values(), "evaluation_split": "validation"}},
        {"setup": {"parallel_seeds": 2}},
        {"setup": {"processes": 2, "machines": 2}},
        {"status": "interrupted"},
        {"protocol": {"version": 1}, "setup": {"processes": 2}},  # another batch norm
    ],
    ids=["batch", "split", "runs at a time", "machines", "interrupted", "protocol"],
)
def test_what_is_other_work_is_no_number(
    folder: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any]
) -> None:
    saved(folder, reference(1.0, ZEN_5, **fields))
    *_, zen_5 = machine_rows(shown(capsys, str(folder)))
    assert re.search(r"not measured +not measured", zen_5)


def test_torch_may_be_the_fastest_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder, reference(0.6, ZEN_5, setup={"device": "cuda", "device_name": "GPU"}))
    output = shown(capsys, str(folder))
    assert re.match(r"GPU \(zen5 \w+\) +100,000 +100,000", machine_rows(output)[0])


def test_a_machine_known_by_name_may_be_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_benchmark(environment={"processor": None})
    folder = saved(tmp_path, [*old, *fast(ZEN_5)])
    assert "By name: records before version 8" in shown(capsys, folder)


def test_rows_against_a_baseline_are_marked_where_their_kernels_differ(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder, fast(ZEN_5, 5.5, setup={"kernels": "inductor"}, label="base"))
    words = (str(folder), "--filter", "recipe == 'fast'", "--baseline", "base")
    rows = json.loads(shown(capsys, *words, "--json"))
    assert {row["kernels"]: row["relative_speed_kernels"] for row in rows} == {
        "amx": "amx against inductor",
        "torch": None,
        "inductor": None,
    }
    for output in (shown(capsys, *words), shown(capsys, *words, "--to", "markdown")):
        [marked] = [line for line in output.splitlines() if "amx" in line and "fast" in line]
        assert DIFFERENT in marked
        assert output.count(DIFFERENT) == 2, "the mark and what it means"
        assert "other kernels than the baseline's" in output


def test_plain_rows_are_marked_and_keep_the_kernels_on_a_narrow_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = (str(folder), "--filter", "recipe == 'fast'", "--sort", "-images_per_second_median")
    output = shown(capsys, *words)
    assert f"torch {DIFFERENT}" in output
    assert LEGEND in output.replace("\n", " ")
    markdown = shown(capsys, *words, "--to", "markdown")
    assert f"| `torch` {DIFFERENT} |" in markdown
    [*_, last] = markdown.splitlines()
    assert last.startswith(LEGEND)
    assert MarkdownIt("commonmark").enable("table").render(markdown).count("<p>") == 1


def test_an_ascii_terminal_has_a_mark_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["report", "--per", "benchmark", str(folder)]) == 0
    stream.seek(0)
    output = stream.read()
    assert "torch" in output
    assert "# other kernels than the first row's" in output.replace("\n", " ")
    assert "?" not in output


@pytest.mark.slow
def test_the_published_page_and_the_report_have_both(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "--results-dir", str(folder)]) == 0
    page = (folder / "README.md").read_text(encoding="utf-8")
    section = page[page.index("## Device number") : page.index("## Every benchmark")]
    rows = [line for line in section.splitlines() if line.startswith("| `AMD EPYC (")]
    assert re.match(
        r"\| `AMD EPYC \(zen4 \w+\)` \| 1,500 \| 10,000 \| `fp32 torch, .*`, `", rows[0]
    )
    assert re.match(r"\| `AMD EPYC \(zen5 \w+\)` \| not measured \| not measured \| – ", rows[1])
    assert f"`{DEVICE_COMMAND}`" in page
    assert f"bf16, protocol 1` {DIFFERENT} |" in page
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert "Device number and code number" in html
    assert re.search(r"1,500<small>fp32 torch, 1 process, 1 thread, set-up \d</small>", html)
    assert f"<code>{DEVICE_COMMAND}</code>" in html
    assert LEGEND in html.replace("&#39;", "'")
    assert DIFFERENT in html


@pytest.mark.slow
def test_verify_accepts_a_row_with_its_mark(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mark depends on the table's first row, which another folder may hold."""
    assert main(["publish", "--results-dir", str(folder)]) == 0
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        capsys.readouterr()
        main(["verify", str(folder / name), "--json"])
        checks = json.loads(capsys.readouterr().out)["checks"]
        [published] = [check for check in checks if check["name"] == "published"]
        assert published["outcome"] == "pass", published
