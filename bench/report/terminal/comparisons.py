"""Comparisons as tables: both sides, their difference, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence, Set

from rich.console import Group, RenderableType
from rich.text import Text

from bench import text
from bench.analysis.cases import CaseMatch
from bench.analysis.comparison import Comparison, Metric, MetricComparison, Verdict
from bench.analysis.device_comparison import DeviceComparison
from bench.report.terminal.tables import FittedTable, Section, TableColumn
from bench.text import MISSING, Rounding, printable

_IN_POINTS = (Metric.SHARE_REACHED, Metric.ACCURACY)
"""Metrics whose difference is in percentage points."""
_BY_RANKS = (Metric.TIME_TO_TARGET, Metric.SECONDS_PER_IMAGE, Metric.SAMPLES_TO_TARGET)
"""Metrics whose difference is estimated from the ratios of runs, by ranks."""
_LEAST_EXPLAINED = 0.005
"""Distance of a difference from that of the medians beside it that a reader would notice."""
_VERDICT_STYLES = {
    Verdict.BETTER: "green",
    Verdict.EQUIVALENT: "green",
    Verdict.ALIKE: "green",
    Verdict.WORSE: "red",
    Verdict.APART: "red",
}


def comparison(
    base: str,
    new: str,
    match: CaseMatch,
    comparisons: Sequence[Comparison],
    devices: DeviceComparison | None = None,
    *,
    is_gate: bool = False,
) -> RenderableType:
    """One table per case, with its remarks, and the cases that only one side has.

    Where machines and kernels differ, the comparison of the devices alone stands last. With
    `is_gate`, numbers of runs are not advised: the gate's findings name those that its limits need.
    """
    parts: list[RenderableType] = [Text(printable(f"{new} against {base}"), style="bold")]
    for case_comparison in comparisons:
        parts += [Text(), _comparison_table(case_comparison, advises=not is_gate)]
        parts += [
            Text(printable(f"! {remark}"), style="yellow")
            for remark in case_comparison.case.remarks
        ]
    parts += [
        Text(printable(f"! {name}: only {which} has it"), style="yellow")
        for which, names in (("the base", match.missing), ("the new side", match.added))
        for name in names
    ]
    if devices is not None:
        parts += _devices(devices, said={r for each in comparisons for r in each.case.remarks})
    return Group(*parts, Text())


def _devices(devices: DeviceComparison, said: Set[str]) -> list[RenderableType]:
    """The table of the devices alone, or what is missing for it.

    Args:
        devices: the comparison.
        said: remarks that stand above already.
    """
    lines = list(devices.missing)
    parts: list[RenderableType] = []
    if devices.comparison is not None:
        title = "The devices alone: the same machines and recipe, torch's operators on both"
        parts += [Text(), Text(title, style="bold"), _comparison_table(devices.comparison)]
        lines += [remark for remark in devices.comparison.case.remarks if remark not in said]
    return [*parts, *(Text(printable(f"! {line}"), style="yellow") for line in lines)]


def _comparison_table(comparison: Comparison, *, advises: bool = True) -> RenderableType:
    """One row per metric: both sides, their difference, and the verdict."""
    case, lines = comparison.case, comparison.lines
    counts = f"{len(case.base)} and {len(case.new)} runs"
    title = Text(printable(f"{case.name}: {counts}{', interleaved' if comparison.paired else ''}"))
    fields = [
        TableColumn("", [Text(line.heading) for line in lines], justify="left"),
        TableColumn("base", [_side(line, line.base) for line in lines], priority=2),
        TableColumn("new", [_side(line, line.new) for line in lines], priority=1),
        TableColumn("difference", [_difference(line) for line in lines]),
        TableColumn("95 % interval", [_difference_between(line) for line in lines]),
        TableColumn("verdict", [_verdict(line) for line in lines], justify="left"),
    ]
    notes = [
        Text(printable(f"{line.heading}: {line.note}"), style="dim") for line in lines if line.note
    ]
    if advises:
        fewest = min(len(case.base), len(case.new))
        advice = [(line.heading, _advice(line, fewest)) for line in lines]
        notes += [Text(f"{heading}: {what}", style="dim") for heading, what in advice if what]
    if apart := [line.heading for line in lines if _differs_from_medians(line)]:
        notes.append(Text(_explain_difference(apart, comparison.paired), style="dim"))
    section = Section(0, len(lines), title, notes)
    return FittedTable(fields, [section], elsewhere=" because the terminal is too narrow")


def _explain_difference(headings: Sequence[str], paired: bool) -> str:
    if paired:
        what = "estimated from the ratios within the rounds, not from the two medians"
    else:
        what = "the median ratio of each new run to each base run, not the ratio of the two medians"
    return f"difference of {' and '.join(headings)}: {what}"


def _differs_from_medians(line: MetricComparison) -> bool:
    """Whether the difference is not the one between the two medians shown beside it."""
    if line.metric not in _BY_RANKS or line.per_success or line.difference is None:
        return False
    if not line.base or line.new is None:
        return False
    return abs(line.difference.value - line.new / line.base) >= _LEAST_EXPLAINED


def _advice(line: MetricComparison, runs: int) -> str | None:
    """How many runs could decide what these do not, where that is known.

    Args:
        line: the comparison.
        runs: number of runs of the smaller side.
    """
    if line.verdict is not Verdict.UNCLEAR:
        return None
    has_no_interval = line.difference is not None and line.difference.low is None
    advice = []
    if has_no_interval and runs < line.fewest_shown:
        advice.append(f"an interval takes at least {line.fewest_shown} runs per side")
    if line.runs_needed:
        advice.append(f"about {line.runs_needed} runs per side could decide it")
    return "; ".join(advice) or None


def _side(line: MetricComparison, value: float | None) -> Text:
    if value is None:
        return Text(MISSING)
    match line.metric:
        case Metric.ACCURACY:
            return Text(text.percent(value))
        case Metric.SHARE_REACHED:
            return Text(f"{100 * value:.0f} %")
        case Metric.TIME_TO_TARGET:
            return Text(text.seconds(value))
        case Metric.SECONDS_PER_IMAGE:
            return Text(f"{text.quantity(1e6 * value)} us")
        case Metric.SAMPLES_TO_TARGET:
            return Text(f"{value:,.0f}")
        case Metric.CONVERGENCE:
            return Text(f"{value:.4f}")


def _difference(line: MetricComparison) -> Text:
    return Text(MISSING if line.difference is None else _relative(line, line.difference.value))


def _difference_between(line: MetricComparison) -> Text:
    ends = line.difference
    if ends is None or (ends.low is None and ends.high is None):
        return Text(MISSING)
    low, high = (
        "?" if end is None else _end(line, end, rounding)
        for end, rounding in ((ends.low, Rounding.DOWN), (ends.high, Rounding.UP))
    )
    return Text(f"{low} to {high}")


def _relative(line: MetricComparison, value: float) -> str:
    """A difference of accuracies or shares in percentage points, of other metrics in % of base."""
    number, decimals = _shown(line, value)
    unit = "pts" if line.metric in _IN_POINTS else "%"
    return f"{number:+.{decimals}f} {unit}"


def _end(line: MetricComparison, value: float, rounding: Rounding) -> str:
    """An end of the interval of such a difference, without its unit, rounded outwards."""
    number, decimals = _shown(line, value)
    return f"{text.rounded(number, decimals, rounding):+.{decimals}f}"


def _shown(line: MetricComparison, value: float) -> tuple[float, int]:
    """A difference in the unit that is shown, and the number of its decimals."""
    match line.metric:
        case Metric.SHARE_REACHED:
            return value, 0
        case Metric.ACCURACY:
            return value, 3
        case _:
            return 100 * (value - 1), 1


def _verdict(line: MetricComparison) -> Text:
    return Text(line.verdict.value, style=_VERDICT_STYLES.get(line.verdict, "dim"))
