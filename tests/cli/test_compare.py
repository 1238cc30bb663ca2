"""`mnist-bench compare`: what may be compared, and what is printed."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from bench.analysis.cases import match_cases
from bench.analysis.run_sets import RunSet
from bench.cli import main
from bench.records.schema import SCHEMA_VERSION, RunRecord, Status
from mnist_cnn.errors import UsageError
from tests.factories import ZEN_4, ZEN_5, noisy_runs, reached_nothing, saved


def test_a_table_and_the_gates_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    base = saved(tmp_path / "base", noisy_runs(0))
    new = saved(tmp_path / "new", noisy_runs(1, slower=1.2))
    assert main(["compare", base, new]) == 0
    table = capsys.readouterr().out
    assert "time to target" in table
    assert "worse" in table
    assert "+20" in table
    summary = tmp_path / "summary.md"
    words = ["compare", base, new, "--fail-if-slower", "5%", "--summary", str(summary)]
    assert main(words) == 1
    lines = capsys.readouterr().out
    assert "regression" in lines
    assert "allowed +5.0 %" in lines
    title, _, case, _, header, _, finding = summary.read_text().splitlines()[:7]
    assert title == f"### mnist-bench gate: regression, `{new}` against `{base}`"
    assert case == "`fast, cpu, 1 process, 2 threads, bf16`"
    assert header == "| outcome | what |"
    assert finding.startswith("| regression | `time an image: +2"), "the set-up is named once"
    assert main([*words[:3], "--fail-if-slower", "50%"]) == 0
    assert main(["compare", base, new, "--fail-if-less-accurate", "0.05"]) == 0
    assert main(["compare", new, base, "--fail-if-slower", "5%"]) == 0


@pytest.mark.parametrize(
    ("count", "advice"),
    [
        (9, "seconds a success: an interval takes at least 10 runs per side"),
        (12, r"seconds a success: about \d+ runs per side could decide it"),
    ],
)
def test_what_a_success_costs_is_named_so_with_the_runs_that_would_tell(
    count: int, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = noisy_runs(0, count), noisy_runs(1, count)
    words = [
        "compare",
        saved(tmp_path / "a", base),
        saved(tmp_path / "b", [reached_nothing(new[0]), *new[1:]]),
    ]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "time to target" not in table
    assert re.search(advice, table), table
    assert main([*words, "--json"]) == 0
    ((case,),) = (side["cases"] for side in json.loads(capsys.readouterr().out)["comparisons"])
    assert [m["metric"] for m in case["metrics"] if m["per_success"]] == ["time to target"]


def test_a_gate_advises_runs_once_and_bounds_to_one_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table's advice is for another question, and its interval has two ends."""
    words = ["compare", saved(tmp_path / "a", noisy_runs(0, 6, spread=0.2))]
    words.append(saved(tmp_path / "b", noisy_runs(1, 6, spread=0.2)))
    assert main(words) == 0
    assert "could decide it" in capsys.readouterr().out
    assert main([*words, "--fail-if-slower", "5%"]) == 2
    output = capsys.readouterr().out
    assert "could decide it" not in output
    assert re.search(r"time an image: \S+ % \(at most \+.* %; allowed .*cannot tell", output)
    assert re.search(r"cannot tell; about \d+ runs per side would", output)


def test_a_gates_lines_are_wrapped_between_words_on_a_terminal_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    words = ["compare", saved(tmp_path / "a", noisy_runs(0)), saved(tmp_path / "b", noisy_runs(1))]
    outputs = []
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda answer=is_terminal: answer)
        assert main([*words, "--fail-if-slower", "20%"]) == 0
        outputs.append(capsys.readouterr().out)
    whole, wrapped = (text[text.index("pass ") :] for text in outputs)
    assert max(map(len, whole.splitlines())) > 60 >= max(map(len, wrapped.splitlines()))
    assert wrapped.split() == whole.split()


def test_the_summary_has_the_remarks_and_nothing_in_it_takes_effect(tmp_path: Path) -> None:
    name, summary = "<b>|`x` [y](z)", tmp_path / "gate.md"
    base, new = noisy_runs(0), noisy_runs(1, setup={"device_name": name})
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new)]
    assert main([*words, "--fail-if-slower", "5%", "--summary", str(summary)]) == 2
    finding, *_, remark = [line for line in summary.read_text().splitlines() if "<b>" in line]
    assert finding.startswith("| unclear | ``")
    assert finding.endswith("`` |")
    assert r"<b>\|`x`" in finding
    assert remark.startswith("- ``")
    assert remark.endswith("``")
    assert "device differs" in summary.read_text()


def test_sides_by_label_commit_and_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(
        tmp_path / "results",
        noisy_runs(0, label="before", environment={"commit": "a" * 40}),
    )
    saved(
        tmp_path / "results" / "local",
        noisy_runs(1, label="after", environment={"commit": "b" * 40}),
    )
    assert main(["compare", "before", "after"]) == 0
    assert main(["compare", "aaaaaaa", "bbbbbbbb"]) == 0
    assert main(["compare", "befor", "after"]) == 2
    assert "did you mean 'before'" in capsys.readouterr().err
    assert main(["compare", "local", "after"]) == 2
    assert "did you mean 'results/local'" in capsys.readouterr().err


ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[], tuple[list[RunRecord], list[RunRecord]]]


REFUSED: dict[str, tuple[Make, str]] = {
    "another target": (
        lambda: (
            noisy_runs(0),
            noisy_runs(1, protocol={"target_accuracy": 0.99}),
        ),
        "target differs: 0.994 (base), 0.99 (new)",
    ),
    "another protocol": (
        lambda: (noisy_runs(0), noisy_runs(1, protocol={"version": 2})),
        "protocol version differs: 1 (base), 2 (new)",
    ),
    "another division": (
        lambda: (noisy_runs(0), noisy_runs(1, division="closed")),
        "division differs: open (base), closed (new)",
    ),
    "other data": (
        lambda: (
            noisy_runs(0),
            noisy_runs(1, dataset={"train-images-idx3-ubyte": "cafe" * 16}),
        ),
        "data sums differs: train-images-idx3-ubyte",
    ),
    "other data within a side": (
        lambda: (
            [
                *noisy_runs(0),
                *noisy_runs(2, dataset={"train-images-idx3-ubyte": "cafe" * 16}),
            ],
            noisy_runs(1),
        ),
        "not of one kind: data sums differs",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    make, message = REFUSED[what]
    base, new = make()
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_differs_is_remarked_upon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = noisy_runs(0)
    new = noisy_runs(1, setup={"precision": "fp32"}, environment={"torch": "9.9", "dirty": True})
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "precision differs" in table
    assert "torch differs" in table
    assert "files differed from the commit" in table


BAD: dict[str, tuple[list[str], str]] = {
    "one side": (["compare", "{a}"], "name at least two things to compare"),
    "no name": (["compare", "", "{a}"], "one of the names to compare is empty"),
    "a very long name": (["compare", "x" * 300, "{a}"], "is no file or folder"),
    "itself": (["compare", "{a}", "{a}"], "in common"),
    "a copy of itself": (["compare", "{a}", "{copy}"], "8 runs in common"),
    "an empty folder": (["compare", "{a}", "{empty}"], "no run records in"),
    "records with NaN": (["compare", "{a}", "{nan}"], "not a run record: final_accuracy"),
    "a commit that is none": (["compare", "{a}", "0000000"], "is no file or folder"),
    "no such thing": (["compare", "{a}", "nowhere"], "is no file or folder"),
    "not a share": (["compare", "{a}", "{b}", "--fail-if-slower", "fast"], "takes a number"),
    "NaN": (["compare", "{a}", "{b}", "--fail-if-slower", "nan"], "takes a number"),
    "too much": (["compare", "{a}", "{b}", "--fail-if-slower", "500%"], "0 to 100"),
    "a summary of nothing": (
        ["compare", "{a}", "{b}", "--summary", "{empty}/s"],
        "--summary needs",
    ),
    "all failed": (["compare", "{a}", "{failed}"], "the new side has no completed run"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    words, message = BAD[what]
    (tmp_path / "empty").mkdir()
    nan = saved(tmp_path / "nan", noisy_runs(2))
    for path in Path(nan).rglob("*.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {"final_accuracy": math.nan}))
    failed = [
        record.model_copy(update={"status": Status.FAILED, "reason": "RuntimeError: out of memory"})
        for record in noisy_runs(3)
    ]
    names = {
        "a": saved(tmp_path / "a", noisy_runs(0)),
        "b": saved(tmp_path / "b", noisy_runs(1)),
        "failed": saved(tmp_path / "failed", failed),
        "copy": str(tmp_path / "copy"),
        "nan": nan,
        "empty": str(tmp_path / "empty"),
    }
    copytree(names["a"], names["copy"])
    assert main([word.format(**names) for word in words]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.count("\n") == 1
    assert "Traceback" not in streams.err


def test_older_schemas_are_compared_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = saved(tmp_path / "a", noisy_runs(0))
    for path in Path(base).rglob("*.json"):
        values = json.loads(path.read_text())
        values["schema_version"] = 1
        del values["setup"]["kernels"]
        path.write_text(json.dumps(values))
    assert main(["compare", base, saved(tmp_path / "b", noisy_runs(1))]) == 0
    assert f"record schema differs: 1 (base), {SCHEMA_VERSION} (new)" in capsys.readouterr().out


def test_a_side_is_not_compared_with_itself() -> None:
    runs = tuple(noisy_runs(0))
    with pytest.raises(UsageError, match="8 runs in common"):
        match_cases(RunSet("a", runs), RunSet("b", runs))


def test_sides_without_a_set_up_in_common_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each side has two set-ups, so it is not clear which ones to compare."""
    base = [*noisy_runs(0), *noisy_runs(1, setup={"processes": 2})]
    new = [*noisy_runs(2, setup={"processes": 3}), *noisy_runs(3, setup={"processes": 4})]
    assert main(["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new)]) == 2
    error = capsys.readouterr().err
    assert "have no set-up in common" in error
    assert error.count("\n") == 1


def test_each_kind_of_a_set_up_is_compared_with_its_like(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a machine's folder has them: whole runs of a recipe, and runs of one epoch."""
    short = {**noisy_runs(0)[0].recipe, "epochs": 1}
    base = saved(tmp_path / "a", [*noisy_runs(0), *noisy_runs(1, recipe=short)])
    new = saved(tmp_path / "b", [*noisy_runs(2), *noisy_runs(3, recipe=short, slower=2.0)])
    only = saved(tmp_path / "c", noisy_runs(4, recipe=short))
    assert main(["compare", base, new, "--json"]) == 0
    (side,) = json.loads(capsys.readouterr().out)["comparisons"]
    whole, one_epoch = side["cases"]
    assert one_epoch["name"] == "fast, cpu, 1 process, 2 threads, bf16, 1 epoch"
    assert whole["name"].endswith(" epochs")
    difference = {case["name"]: case["metrics"][1]["difference"] for case in (whole, one_epoch)}
    assert difference[whole["name"]] < 1.1 < 1.8 < difference[one_epoch["name"]]
    assert main(["compare", base, only, "--json"]) == 0
    (side,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert [case["name"] for case in side["cases"]] == [one_epoch["name"]]
    assert side["only_base"] == [whole["name"]]


def test_kinds_are_named_by_what_differs_and_a_changed_recipe_is_a_remark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def side(number: int, **recipe: object) -> list[RunRecord]:
        values = {**noisy_runs(0)[0].recipe, **recipe}
        loose = {"target_accuracy": 0.99}
        return [
            *noisy_runs(number, recipe=values),
            *noisy_runs(number + 1, recipe=values, protocol=loose),
        ]

    base, new = saved(tmp_path / "a", side(0)), saved(tmp_path / "b", side(2, momentum=0.5))
    assert main(["compare", base, new, "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)["comparisons"]
    setup = "fast, cpu, 1 process, 2 threads, bf16"
    assert {case["name"] for case in compared["cases"]} == {
        f"{setup}, target 99.4 %",
        f"{setup}, target 99 %",
    }
    assert all("recipe differs: momentum" in case["remarks"] for case in compared["cases"])
    # As first runs of a gate they are as good.
    words = ["compare", "nothing", new, "--allow-no-baseline", "--fail-if-slower", "10%"]
    assert main(words) == 0


def test_two_machines_are_compared_where_each_has_its_own_kernels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each side has two set-ups, which are alike but for the kernels."""
    sides = []
    for number, (processor, kernels) in enumerate(((ZEN_4, "avx2"), (ZEN_5, "avx512"))):
        runs: list[RunRecord] = []
        for threads in (1, 2):
            setup = {"kernels": kernels, "threads": threads}
            seed = 2 * number + threads
            runs += noisy_runs(seed, setup=setup, environment={"processor": processor})
        sides.append(saved(tmp_path / kernels, runs))
    assert main(["compare", *sides, "--json"]) == 0
    (side,) = json.loads(capsys.readouterr().out)["comparisons"]
    names = [case["name"] for case in side["cases"]]
    assert len(names) == 2
    assert all("avx512 against" in name and name.endswith("avx2") for name in names)
    machines = [case[f"{side}_machines"] for case in side["cases"] for side in ("base", "new")]
    assert all(len(names) == 1 for names in machines)
    assert machines[0] != machines[1]
    one_epoch = {**noisy_runs(0)[0].recipe, "epochs": 1}
    setup = {"kernels": "avx2", "threads": 2}
    more = noisy_runs(9, recipe=one_epoch, setup=setup, environment={"processor": ZEN_4})
    saved(tmp_path / "avx2", more)
    assert main(["compare", *sides, "--json"]) == 0
    (side,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert len(side["cases"]) == 2
    (only,) = side["only_base"]
    assert only.endswith("avx2, 1 epoch")
    # A gate compares nothing but a machine with itself.
    assert main(["compare", *sides, "--fail-if-slower", "50%"]) == 2
    assert "the base is of another machine" in capsys.readouterr().out


def test_a_difference_that_the_medians_do_not_give_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def side(name: str, *rates: float) -> str:
        runs = [noisy_runs(0, 1, slower=rate)[0] for rate in rates]
        return saved(
            tmp_path / name,
            [
                run.model_copy(update={"run_id": f"{name}-{number}", "seed": number})
                for number, run in enumerate(runs)
            ],
        )

    words = ["compare", side("a", 1.0, 1.0, 2.0), side("b", 1.0, 1.9, 2.0)]
    assert main(words) == 0
    line = "time an image: the median ratio of each new run to each base run, not the ratio of"
    assert line in " ".join(capsys.readouterr().out.split())
    assert main([words[0], side("c", 1.0, 1.0, 1.0), side("d", 1.5, 1.5, 1.5)]) == 0
    assert "the median ratio" not in capsys.readouterr().out


def test_what_was_not_judged_is_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = saved(tmp_path / "new", noisy_runs(0))
    assert main(["compare", "nothing", new, "--fail-if-slower", "10%", "--json"]) == 2
    streams = capsys.readouterr()
    gate = json.loads(streams.out)["gate"]
    assert gate["outcome"] == "unclear"
    assert gate["exit_status"] == 2
    assert gate["findings"][0]["text"].startswith("nothing was judged: 'nothing' is no file")
    assert streams.err.count("\n") == 1


def test_the_documents_folders_have_something_in_common(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
    line = page[page.index("compare results/") :].split("  #")[0]
    assert main(line.split()) == 0
    assert "time an image" in capsys.readouterr().out
