"""The table of results within the page above the results folder: what `report` prints."""

from __future__ import annotations

from pathlib import Path

from bench.analysis.benchmarks import group_runs, pool_single_runs
from bench.analysis.device_numbers import machine_numbers
from bench.analysis.standings import standings
from bench.records.folders import RESULTS_DIR
from bench.records.store import LARGEST_PAGE_BYTES, PAGE_NAME, ReadResult
from mnist_cnn.disk import read_file

WIDTH = 100
"""Characters a line."""
START = f"<!-- results: COLUMNS={WIDTH} mnist-bench report {RESULTS_DIR}/ -->\n```\n"
END = "```\n<!-- end of results -->\n"


def render_block(results: ReadResult, results_dir: Path) -> dict[Path, str]:
    """The page above the results folder with the table of today; empty where no page has one.

    Args:
        results: the records of the folder.
        results_dir: the folder; its name must be that in the block's command.
    """
    folder = results_dir if results_dir.name else results_dir.resolve()
    page = folder.parent / PAGE_NAME
    try:
        before, start, rest = read_file(page, LARGEST_PAGE_BYTES).decode().partition(START)
    except (OSError, UnicodeDecodeError):
        return {}
    _, end, after = rest.partition(END)
    if folder.name != RESULTS_DIR.name or not start or not end:
        return {}
    return {page: f"{before}{start}{_table(results)}{end}{after}"}


def _table(results: ReadResult) -> str:
    """The lines of `mnist-bench report results/`, without spaces at their ends."""
    # Lazy: rich takes a tenth of a second to import.
    from bench.report import terminal

    benchmarks = pool_single_runs(group_runs(results.records))
    several = len(machine_numbers([("", one) for one in benchmarks])) > 1
    shown = (
        terminal.standings_table(standings(("", one) for one in benchmarks))
        if several
        else terminal.summary(benchmarks)
    )
    return "".join(f"{line.rstrip()}\n" for line in terminal.plain_lines(shown, WIDTH))
