"""Measures the steps of docs/speed.md: the speed of each way to compute an epoch, side by side.

    .venv/bin/python scripts/road.py --rounds 3

Every round runs all set-ups once, in random order, each with `mnist-bench run` in its own
processes, so that a slow period of the machine affects all of them. A round takes some minutes
where a plain epoch takes one minute; do not use the machine meanwhile.
"""

from __future__ import annotations

import random
import shlex
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bench.analysis import metrics
from bench.launch import single_run
from bench.records import store
from bench.records.schema import LapKind, RunRecord
from mnist_cnn.console import run
from mnist_cnn.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
EPOCH = "--recipe reference --epochs 1"
RESIDENT = f"{EPOCH} --pipeline resident"
ROAD = {
    "plain": f"{EPOCH} --kernels torch",
    "plain, 2 processes": f"{EPOCH} --kernels torch --processes 2",
    "resident": f"{RESIDENT} --kernels torch",
    "resident, bf16": f"{RESIDENT} --precision bf16 --kernels torch",
    "resident, bf16, 2 processes": f"{RESIDENT} --precision bf16 --kernels torch --processes 2",
    "avx512": f"{RESIDENT} --precision bf16 --kernels avx512-bf16",
    "avx512, 2 processes": f"{RESIDENT} --precision bf16 --kernels avx512-bf16 --processes 2",
    "amx": f"{RESIDENT} --precision bf16 --kernels amx",
    "amx, 2 processes": f"{RESIDENT} --precision bf16 --kernels amx --processes 2",
    "fast": "--recipe fast",
}
"""Options by label, from the original specification to the fastest recipe. Each is one epoch,
except the last, which is a whole run."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def road(
    labels: Annotated[
        list[str] | None, typer.Argument(help="Labels of the set-ups to run (default: all).")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of runs of each set-up.")] = 3,
    results_dir: Annotated[Path, typer.Option(help="Folder for the records.")] = ROOT
    / "scratch/road",
) -> None:
    """Run every set-up `rounds` times and print its training seconds."""
    chosen = list(labels or ROAD)
    if unknown := [label for label in chosen if label not in ROAD]:
        raise UsageError(f"unknown set-up {unknown[0]!r}; there are: {'; '.join(ROAD)}")
    for seed in range(rounds):
        # The order is random, but the same for each repetition of a round.
        for label in random.Random(seed).sample(chosen, len(chosen)):
            words = ["--label", label, "--seed", str(seed), "--results-dir", str(results_dir)]
            print(f"round {seed + 1}: {label}", file=sys.stderr, flush=True)
            status = single_run.run_once([*words, *shlex.split(ROAD[label])])
            if status != 0:
                raise UsageError(f"{label!r} ended with status {status}; see above")
    print(table([record for _, record in store.read_records([results_dir]).records], chosen))


def table(records: list[RunRecord], labels: list[str]) -> str:
    """One line per set-up with completed runs: its seconds, and the first's relative to them.

    The ratio is the median over rounds of the ratio of the two runs of a round.
    """
    seconds: dict[str, dict[int, float]] = {label: {} for label in labels}
    for record in metrics.completed(records):
        trained = metrics.seconds_of(record, LapKind.TRAIN)
        if record.label in seconds and trained is not None:
            seconds[record.label][record.seed] = trained
    lines = [f"{'set-up':<28} {'n':>2} {'median s':>9} {'least':>7} {'most':>7} {'times':>6}"]
    first = next((by_seed for by_seed in seconds.values() if by_seed), {})
    for label, by_seed in seconds.items():
        if by_seed:
            ratios = [first[seed] / by_seed[seed] for seed in by_seed if seed in first]
            values = list(by_seed.values())
            lines.append(
                f"{label:<28} {len(values):>2} {median(values):>9.1f} {min(values):>7.1f} "
                f"{max(values):>7.1f} {f'{median(ratios):.1f}' if ratios else '':>6}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(app, "road.py", sys.argv[1:]))
