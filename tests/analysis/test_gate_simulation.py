"""How often the gate passes, fires and cannot tell, by simulation; and its rules one by one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from scipy import stats as scipy_stats

from bench.analysis.case_comparison import compare_case
from bench.analysis.cases import match_cases
from bench.analysis.comparison import Metric, Verdict
from bench.analysis.gate import GateOutcome, Limits
from bench.analysis.repeats import has_repeated_seeds, one_per_seed
from bench.analysis.run_sets import RunSet
from bench.cli import main
from bench.records.machine import Processor
from bench.records.schema import RunRecord, Status
from tests.analysis.gate_simulation import Truth, outcomes, side, times_fired_before
from tests.factories import busy, noisy_runs, saved

ROOT = Path(__file__).resolve().parents[2]
TIMES = 200
LIMITS = ["--fail-if-slower", "10%", "--fail-if-less-accurate", "0.05"]
STRICT = Limits(0.05, 0.05)


def at_least(rate: float) -> float:
    """The number of successes in `TIMES` that chance falls below once in a thousand times."""
    return float(scipy_stats.binom.ppf(0.001, TIMES, rate))


def at_most(rate: float) -> float:
    """The number of successes in `TIMES` that chance exceeds once in a thousand times."""
    return float(scipy_stats.binom.ppf(0.999, TIMES, rate))


@pytest.mark.parametrize(("runs", "passes"), [(5, 0.90), (10, 0.97), (20, 0.99)])
def test_equal_code_passes(runs: int, passes: float) -> None:
    counts = outcomes(Truth(runs=runs), TIMES)
    assert counts[GateOutcome.PASS] >= at_least(passes)
    assert counts[GateOutcome.REGRESSION] == 0


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"first_seed": None}, {"rounding": "other"}])
def test_equal_code_with_other_trainings_needs_more_runs(change: dict[str, None]) -> None:
    """Unlike the same seeds: forty runs pass four times in five, and seldom fire."""
    counts = outcomes(Truth(runs=40, **change), TIMES)  # type: ignore[arg-type]
    assert counts[GateOutcome.PASS] >= at_least(0.80)
    assert counts[GateOutcome.REGRESSION] <= at_most(0.02)


@pytest.mark.slow
def test_what_is_slower_or_less_accurate_is_found() -> None:
    """At least as often as by the rule that did not look at seeds, in the same simulations."""
    for truth, fires in (
        (Truth(runs=10, slower=1.1, limits=STRICT), 0.80),
        (Truth(runs=10, loss_points=0.1), 0.95),
        (Truth(runs=20, loss_points=0.1, rounding="other"), 0.95),
        (Truth(runs=20, loss_points=0.1, first_seed=None), 0.95),
    ):
        fired = outcomes(truth, TIMES)[GateOutcome.REGRESSION]
        assert fired >= at_least(fires), truth
        assert fired >= times_fired_before(truth, TIMES), truth


def test_a_session_of_its_own_seldom_makes_equal_code_a_regression() -> None:
    """10 % allowed: never in practice. 5 % allowed: as docs/statistics.md says, unless known."""
    two_sessions = Truth(runs=10, sessions=True)
    assert outcomes(two_sessions, TIMES)[GateOutcome.REGRESSION] <= at_most(0.005)
    known_floor = Truth(runs=10, sessions=True, limits=STRICT, floor=0.07)
    assert outcomes(known_floor, TIMES)[GateOutcome.REGRESSION] <= at_most(0.02)


@pytest.mark.slow
def test_many_cases_pass_nearly_as_often_as_one_and_fire_no_more() -> None:
    """No correction on passing (every case must pass), a correction on firing."""
    five = outcomes(Truth(runs=10, cases=5), TIMES // 2)
    assert five[GateOutcome.PASS] >= 0.9 * TIMES / 2
    assert five[GateOutcome.REGRESSION] == 0


@pytest.mark.thorough
def test_the_documents_rates() -> None:
    """The table of docs/statistics.md on sessions, and the sentence on other trainings."""
    lines = []
    for runs in (5, 10, 20, 40):
        cells = [
            100 * outcomes(truth, 1000)[GateOutcome.REGRESSION] / 1000
            for truth in (
                Truth(runs=runs, limits=STRICT),
                Truth(runs=runs, sessions=True, limits=STRICT),
                Truth(runs=runs, sessions=True, limits=STRICT, floor=0.07),
                Truth(runs=runs, sessions=True),
            )
        ]
        lines.append(f"| {runs} | {' | '.join(f'{cell:.1f} %' for cell in cells)} |")
    document = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for line in lines:
        assert line in document, "\n".join(lines)


@pytest.mark.slow
def test_the_committed_equal_sides_pass(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(ROOT / "results" / "studies" / "xeon-ab")
    words = ["compare", "floor-a", "floor-b", "--results-dir", folder]
    assert main([*words, *LIMITS]) == 0
    printed = capsys.readouterr().out
    assert "18 trainings are identical, seed by seed: not less accurate than allowed" in printed
    assert "14 of 18 and 14 of 18 runs" in printed
    # Four runs of each side missed: a limit for time alone must not pass them.
    assert main([*words, "--fail-if-slower", "10%"]) == 2
    assert "add --fail-if-less-accurate" in capsys.readouterr().out
    # With half a millisecond of sleep a step, 13 % slower.
    words[1:3] = ["injected-a", "injected-b"]
    assert main([*words, "--fail-if-slower", "5%", "--fail-if-less-accurate", "0.05"]) == 1


def test_the_documents_gates_follow_from_the_records(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The findings in docs/statistics.md; they leave the name of the case out."""
    monkeypatch.chdir(ROOT)
    document = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\n\$ mnist-bench (compare .*)\n((?:.*\n)+?)```", document)
    assert len(blocks) == 2
    for command, printed in blocks:
        main(shlex.split(command))
        output = capsys.readouterr().out.replace("fast, cpu, 1 process, 2 threads, bf16 amx: ", "")
        for line in printed.splitlines():
            assert line in output


def test_the_order_of_the_seeds_does_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = side(1, 6)
    new = side(2, 6)
    moments = [record.started_at for record in new]
    backwards = [
        record.model_copy(update={"started_at": moment})
        for record, moment in zip(reversed(new), moments, strict=True)
    ]
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", backwards)]
    assert main([*words, *LIMITS]) == 0
    assert "6 trainings are identical" in capsys.readouterr().out


def test_fewer_of_the_same_trainings_are_still_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base has twenty seeds, the new side five of them."""
    words = ["compare", saved(tmp_path / "a", side(1, 20)), saved(tmp_path / "b", side(2, 5))]
    assert main([*words, *LIMITS]) == 0
    assert "5 trainings are identical" in capsys.readouterr().out


def test_a_seed_again_is_no_further_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three runs of seed 0 against three of seed 1: two trainings, not six."""
    base, new = (
        [
            noisy_runs(number, 1, accuracy=accuracy)[0].model_copy(
                update={"seed": seed, "benchmark_id": f"{number:032x}"}
            )
            for number in numbers
        ]
        for seed, accuracy, numbers in ((0, 0.9950, (1, 2, 3)), (1, 0.9935, (4, 5, 6)))
    )
    assert has_repeated_seeds(base)
    assert one_per_seed(base) == base[:1]
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new), *LIMITS]
    assert main(words) == 2
    printed = capsys.readouterr().out
    assert "1 and 1 different seeds" in printed
    assert "too few runs for a bound" in printed
    assert "worse" not in printed


def test_one_per_seed_takes_the_first_completed_run() -> None:
    runs = noisy_runs(0, 3)
    stopped = runs[0].model_copy(update={"status": Status.FAILED, "reason": "it broke"})
    again = runs[0].model_copy(update={"run_id": "e" * 32})
    assert one_per_seed([stopped, again, runs[1], runs[0]]) == [again, runs[1]]
    assert not has_repeated_seeds([stopped, again, runs[1]])


def test_the_same_outcomes_of_other_trainings_are_no_certainty() -> None:
    """All reach the target on both sides; with other losses, chance may have made it so."""
    base, new = noisy_runs(0, 3), noisy_runs(1, 3, accuracy=0.9952)
    alike = [
        record.model_copy(update={"seed": first.seed})
        for first, record in zip(base, new, strict=True)
    ]
    (case,) = match_cases(RunSet("a", tuple(base)), RunSet("b", tuple(alike))).cases
    line = compare_case(case, 1).line(Metric.SHARE_REACHED)
    assert line.difference is not None
    assert (line.base, line.new, line.difference.value) == (1.0, 1.0, 0.0)
    assert line.difference.low is not None
    assert line.difference.low < -40
    assert line.verdict is Verdict.UNCLEAR


def test_misses_that_chance_does_not_explain_are_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most reached it before, none does now: within the limit for accuracy all the same."""
    words = [
        "compare",
        saved(tmp_path / "a", side(1, 12)),
        saved(tmp_path / "b", side(2, 12, loss_points=0.5)),
    ]
    assert main([*words, "--fail-if-less-accurate", "1"]) == 1
    assert "fewer, and not by chance" in capsys.readouterr().out


def of_commits(number: int, *commits: str, **fields: str) -> list[RunRecord]:
    """Five runs of each commit, under one label."""
    return [
        record.model_copy(update={"label": "before"})
        for offset, commit in enumerate(commits)
        for record in side(number + offset, 5, environment={"commit": commit * 40, **fields})
    ]


def test_two_installed_versions_are_two_states_of_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        record.model_copy(update={"label": "before"})
        for number, version in ((1, "0.1.0"), (2, "0.2.0"))
        for record in side(
            number, 5, environment={"commit": None, "packages": {"mnist-bench": version}}
        )
    ]
    folder = saved(tmp_path / "results", runs)
    new = saved(tmp_path / "new", side(3, 5))
    assert main(["compare", "before", new, "--results-dir", folder, *LIMITS]) == 2
    assert "version 0.1.0 (5 runs), version 0.2.0 (5 runs)" in capsys.readouterr().err


def test_a_label_over_two_commits_is_refused_until_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "results", of_commits(1, "a", "b"))
    new = saved(tmp_path / "new", side(3, 5))
    words = ["compare", "before", new, "--results-dir", folder]
    assert main([*words, *LIMITS]) == 2
    error = capsys.readouterr().err
    assert "2 states of the code" in error
    assert "aaaaaaa (5 runs), bbbbbbb (5 runs)" in error
    assert "before@bbbbbbb" in error
    assert main(words) == 2
    words[1] = "before@bbbbbbb"
    assert main([*words, *LIMITS]) == 0
    words[1] = f"{folder}@aaaaaaa"
    assert main([*words, *LIMITS]) == 0
    words[1] = "before@ccccccc"
    assert main([*words, *LIMITS]) == 2
    assert "is of commit 'ccccccc'" in capsys.readouterr().err


def test_the_state_with_the_most_runs_is_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        *side(1, 5, environment={"commit": "a" * 40}),
        *side(2, 1, environment={"commit": "b" * 40}),
    ]
    folder = saved(tmp_path / "results", runs)
    assert main(["compare", folder, saved(tmp_path / "new", side(3, 5)), *LIMITS]) == 2
    error = capsys.readouterr().err
    assert "aaaaaaa (5 runs), bbbbbbb (1 run)" in error
    assert f"{folder}@aaaaaaa" in error


def test_commits_with_the_same_sources_are_one_state(tmp_path: Path) -> None:
    base = of_commits(1, "a", "b", source_sha256="5" * 64)
    new = saved(tmp_path / "new", side(3, 5))
    assert main(["compare", saved(tmp_path / "a", base), new]) == 0
    one, other = of_commits(1, "a", source_sha256="5" * 64), of_commits(2, "a", source_sha256="6")
    assert main(["compare", saved(tmp_path / "b", [*one, *other]), new]) == 2


def test_a_label_over_two_machines_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*side(1, 5), *side(2, 5, environment={"cpu": "another processor"})]
    new = saved(tmp_path / "new", side(3, 5))
    assert main(["compare", saved(tmp_path / "a", base), new]) == 2
    assert "that are not of one machine" in capsys.readouterr().err


def test_an_experiment_is_found_without_its_time_if_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("gate-a 20251103T093000Z", "gate-a 20251104T093000Z")
    for number, label in enumerate(labels, start=1):
        runs = [record.model_copy(update={"label": label}) for record in side(number, 5)]
        folder = saved(tmp_path / "results", runs)
        words = ["compare", "gate-a", saved(tmp_path / "new", side(9, 5)), "--results-dir", folder]
        assert main(words) == (0 if number == 1 else 2)
        (tmp_path / "new").rename(tmp_path / f"used-{number}")
    assert "several experiments are called 'gate-a'" in capsys.readouterr().err


@pytest.mark.slow
def test_no_baseline_yet_is_a_pass_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, summary = saved(tmp_path / "new", side(1, 5)), tmp_path / "gate.md"
    (tmp_path / "empty").mkdir()
    for base in ("before", str(tmp_path / "empty"), str(tmp_path / "none")):
        words = ["compare", base, new, *LIMITS, "--summary", str(summary)]
        assert main([*words, "--allow-no-baseline"]) == 0
        assert "no baseline yet" in capsys.readouterr().out
        assert "| pass | `no baseline yet" in summary.read_text()
        assert main(words) == 2
        assert "add --allow-no-baseline" in capsys.readouterr().err
        assert re.search(r"\| unclear \| `+nothing was judged", summary.read_text())
    assert main(["compare", new, "before", *LIMITS, "--allow-no-baseline"]) == 2
    assert main(["compare", "", new, *LIMITS, "--allow-no-baseline"]) == 2
    assert main(["compare", "before", new, "--allow-no-baseline"]) == 2
    assert "--allow-no-baseline needs --fail-if-slower" in capsys.readouterr().err


def test_no_baseline_yet_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = saved(tmp_path / "new", side(1, 5))
    assert main(["compare", "before", new, *LIMITS, "--allow-no-baseline", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparisons"] == []
    assert document["gate"]["outcome"] == "pass"


def test_a_baseline_that_cannot_be_read_is_not_none(tmp_path: Path) -> None:
    new, torn = saved(tmp_path / "new", side(1, 5)), tmp_path / "torn"
    torn.mkdir()
    (torn / "torn.json").write_text("{")
    assert main(["compare", str(torn), new, *LIMITS, "--allow-no-baseline"]) == 2
    words = ["compare", "before", new, *LIMITS, "--allow-no-baseline", "--results-dir", str(torn)]
    assert main(words) == 2


def test_first_runs_that_broke_are_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = side(1, 5)
    broken = runs[4].model_copy(update={"status": Status.FAILED, "reason": "it broke"})
    new = saved(tmp_path / "new", [*runs[:4], broken])
    assert main(["compare", "before", new, *LIMITS, "--allow-no-baseline"]) == 1
    only = saved(tmp_path / "only", [broken])
    assert main(["compare", "before", only, *LIMITS, "--allow-no-baseline"]) == 1
    assert "1 of 1 not completed in one go (failed: it broke)" in capsys.readouterr().out
    stopped = runs[4].model_copy(update={"status": Status.INTERRUPTED})
    new = saved(tmp_path / "stopped", [*runs[:4], stopped])
    assert main(["compare", "before", new, *LIMITS, "--allow-no-baseline"]) == 2


def test_disturbed_first_runs_cannot_become_the_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = saved(tmp_path / "new", busy(side(1, 5), 2))
    words = ["compare", "before", new, "--allow-no-baseline"]
    assert main([*words, *LIMITS]) == 2
    printed = capsys.readouterr().out
    assert "other work disturbed 2 of 5 runs: as a baseline they could not show" in printed
    assert "can become it" not in printed
    assert main([*words, "--fail-if-less-accurate", "0.05"]) == 0, "times do not matter"


def test_a_machine_that_says_less_is_judged_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    processor = Processor(
        vendor="AuthenticAMD",
        family=26,
        model=2,
        stepping=None,
        microarchitecture=None,
        cache_bytes={},
        core_classes=[],
        min_mhz=None,
        max_mhz=None,
    )
    new = side(2, 5, environment={"processor": processor})
    words = ["compare", saved(tmp_path / "a", side(1, 5)), saved(tmp_path / "b", new), *LIMITS]
    assert main(words) == 0
    assert "warning: perhaps not the same machine" in capsys.readouterr().out


def test_a_limit_below_what_sessions_differ_by_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", saved(tmp_path / "a", side(1, 20)), saved(tmp_path / "b", side(2, 20))]
    limit = ["--fail-if-less-accurate", "0.05", "--fail-if-slower"]
    assert main([*words, *limit, "6%"]) == 0
    assert "the sides are of two sessions" in capsys.readouterr().out
    assert main([*words, *limit, "10%"]) == 0
    assert "the sides are of two sessions" not in capsys.readouterr().out
