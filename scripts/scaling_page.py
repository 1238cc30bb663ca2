"""The tables of docs/scaling.md: what scripts/scaling_model.py comes to, and what it is held to.

    .venv/bin/python scripts/scaling_page.py            # print them
    .venv/bin/python scripts/scaling_page.py --write    # in place, in docs/scaling.md

From the model, from the records in results/, and from what others published; nothing is measured
here.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from scaling_model import (
    BATCH,
    ETHERNET,
    H200_BATCH,
    H200_EVALUATE_SECONDS,
    H200_READ_SECONDS,
    H200_STEPS,
    H200_TRAIN_SECONDS,
    INFINIBAND,
    NVLINK,
    Link,
    Measured,
    Worker,
    all_reduce_seconds,
    fastest,
    fitted,
    h200,
    loopback,
    step_seconds,
)

from bench.analysis import metrics
from bench.records import store
from bench.records.schema import LapKind, RunRecord
from bench.stats import summary
from bench.text import count_of
from mnist_cnn.console import run

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "scaling.md"
MEASUREMENTS = ROOT / "docs" / "scaling.json"
RUNS = ROOT / "results" / "amd-epyc-2-cores-scaling"
BLOCK = re.compile(r"(<!-- computed: (\w+) -->\n).*?(<!-- end of computed -->\n)", re.DOTALL)
COUNTS = (1, 2, 4, 8, 16, 32)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Published:
    """A pair of DAWNBench entries of one author: one GPU, and several."""

    who: str
    gpus: int
    batch: tuple[int, int] | None
    """Images a step, of one GPU and of all; None where the entry does not say."""
    epoch_seconds: tuple[float, float]
    epochs: tuple[int, int]
    """To 94 %."""


HOUR = 3600
PUBLISHED = (
    Published(
        "fast.ai, wide ResNet",
        8,
        None,
        ((0.12456993 - 0.00535957) / 29 * HOUR, (0.05353704 - 0.00273068) / 39 * HOUR),
        (27, 36),
    ),
    Published(
        "Kakao Brain, ResNet-9",
        4,
        (500, 2000),
        ((0.01584601 - 0.00063263) / 24 * HOUR, (0.01050415 - 0.00028626) / 34 * HOUR),
        (25, 34),
    ),
    Published(
        "Baidu, ResNet-9",
        8,
        (512, 1024),
        ((0.01994991 - 0.00148373) / 23 * HOUR, (0.01343083 - 0.00068544) / 23 * HOUR),
        (24, 22),
    ),
)
"""From the entries' logs of hours after each epoch, the first epoch left out:
https://github.com/stanford-futuredata/dawn-bench-entries, CIFAR10/train"""
CIFAR10_IMAGES = 50_000
RESNET9_BYTES = 6_573_130 * 2
"""Gradients of the ResNet-9 that both start from, in fp16."""
V100_NVLINK = Link(5e-6, 100e9)
"""Assumed."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown: the first column is text, the others numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def ms(seconds: float) -> str:
    """Milliseconds with three digits, or what there is of them."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine(measured: Measured) -> str:
    """What was measured, when, and how often."""
    about = measured.found["machine"]
    rounds = 1 + max(step["round"] for step in measured.found["measured"])
    return (
        f"{about['cpu']}, {about['usable_cores']} cores"
        f"{' of a virtual machine' if about['virtual_machine'] else ''}, PyTorch {about['torch']}, "
        f"{measured.found['date']}, {rounds} {'round' if rounds == 1 else 'rounds'} "
        "([measurements](scaling.json)).\n"
    )


def shares(measured: Measured) -> str:
    """Where the second process's half goes."""
    rows = []
    for kernels in measured.kernels:
        fit = fitted(measured, kernels)
        lost = (
            fit.alone / measured.processes,
            fit.share_alone - fit.alone / measured.processes,
            fit.share_beside - fit.share_alone,
            fit.all_reduce,
            fit.joined - fit.predicted,
            fit.joined,
        )
        rows.append([kernels, ms(fit.alone), *map(ms, lost)])
    return table(
        (
            "ms a step",
            "alone",
            "ideal",
            "smaller share",
            "neighbours",
            "all-reduce",
            "waiting",
            "joined",
        ),
        rows,
    )


def ratios(measured: Measured) -> str:
    """How many times as fast, predicted and measured, and beside it threads."""
    rows = []
    for kernels in measured.kernels:
        fit = fitted(measured, kernels)
        joined = [
            one / all_
            for one, all_ in zip(
                measured.seconds("alone", kernels, BATCH),
                measured.seconds("joined", kernels, BATCH),
                strict=True,
            )
        ]
        worker = fit.worker
        rows.append(
            [
                kernels,
                f"{fit.alone / fit.predicted:.2f}",
                f"{fit.alone / fit.joined:.2f} ({min(joined):.2f}-{max(joined):.2f})",
                f"{fit.alone / fit.threads:.2f}",
                f"{ms(worker.fixed_seconds)} ({'-'.join(map(ms, fit.fixed_seconds))})",
                f"{1e6 * worker.image_seconds:.0f}",
                f"{worker.neighbours:.2f}",
            ]
        )
    return table(
        (
            f"{measured.processes} processes over one",
            "predicted",
            "measured (range)",
            "threads instead",
            "fixed ms (range)",
            "us an image",
            "neighbours",
        ),
        rows,
    )


def options(measured: Measured) -> str:
    """What DistributedDataParallel's options are worth, round by round."""
    plain = measured.seconds("joined", "torch", BATCH)
    rows = []
    for name in measured.options:
        times = [
            before / after
            for before, after in zip(
                plain, measured.seconds("joined", "torch", BATCH, name), strict=True
            )
        ]
        rows.append([name, f"{median(times):.2f}", f"{min(times):.2f}-{max(times):.2f}"])
    return table(("option", "times as fast", "range"), rows)


def _speedups(
    worker: Worker, batch: int, link: Link, fixed_seconds: tuple[float, float] | None = None
) -> list[str]:
    """A row's cells; the bound with its range where the fixed part's is known."""

    def seconds(count: int) -> float:
        return step_seconds(worker, batch, count, link)

    def bound(fixed: float) -> float:
        return 1 + worker.image_seconds * batch / fixed if fixed > 0 else math.inf

    best = fastest(seconds)
    return [
        *(f"{seconds(1) / seconds(count):.2f}" for count in COUNTS[1:]),
        f"{best}: {seconds(1) / seconds(best):.2f}",
        f"{bound(worker.fixed_seconds):.1f}"
        + (" ({1:.0f}-{0:.0f})".format(*map(bound, fixed_seconds)) if fixed_seconds else ""),
    ]


def strong(measured: Measured) -> str:
    """Speed-ups of a step whose global batch stays what it is."""
    here = loopback(measured)
    compiled = measured.kernels[0]
    fit = fitted(measured, compiled)
    core, fixed = fit.worker, fit.fixed_seconds
    apart = Worker(core.fixed_seconds, core.image_seconds)
    systems = (
        (f"cores of one machine ({compiled}), 128 images", core, BATCH, here, fixed),
        (f"machines of one core each ({compiled}), 10 Gb/s", apart, BATCH, ETHERNET, fixed),
        ("H200s, NVLink, 256 images", h200(), H200_BATCH, NVLINK, None),
        ("H200s, a node each, InfiniBand", h200(), H200_BATCH, INFINIBAND, None),
        ("H200s, a node each, 10 Gb/s", h200(), H200_BATCH, ETHERNET, None),
    )
    rows = [
        [name, *_speedups(worker, batch, link, of_a_round)]
        for name, worker, batch, link, of_a_round in systems
    ]
    return table(
        ("a step's speed-up on", *map(str, COUNTS[1:]), "most, at", "bound"),
        rows,
    )


def weak(measured: Measured) -> str:
    """Efficiency where every worker keeps a whole batch of the recipe's: images, not accuracy."""
    compiled = measured.kernels[0]
    core = fitted(measured, compiled).worker
    systems = (
        (f"cores of one machine ({compiled})", core, BATCH, loopback(measured)),
        ("H200s, NVLink", h200(), H200_BATCH, NVLINK),
        ("H200s, a node each, 10 Gb/s", h200(), H200_BATCH, ETHERNET),
    )
    rows = []
    for name, worker, batch, link in systems:
        one = step_seconds(worker, batch, 1, link)
        rows.append(
            [
                name,
                *(f"{one / step_seconds(worker, batch * n, n, link):.0%}" for n in COUNTS[1:]),
            ]
        )
    return table(("images a second, as a share of the ideal", *map(str, COUNTS[1:])), rows)


def whole() -> str:
    """A run of `fast-gpu` on several H200s: what no GPU shortens is part of it."""
    worker = h200()
    one = H200_READ_SECONDS + H200_TRAIN_SECONDS + H200_EVALUATE_SECONDS
    rows = []
    for count in COUNTS[:4]:
        train = H200_STEPS * step_seconds(worker, H200_BATCH, count, NVLINK)
        total = H200_READ_SECONDS + train + H200_EVALUATE_SECONDS / count
        rows.append([str(count), f"{train:.3f}", f"{total:.3f}", f"{one / total:.2f}"])
    return table(("H200s", "training, s", "to 99.4 %, s", "times"), rows)


def published() -> str:
    """What others' second to eighth GPU brought."""
    rows = []
    for entry in PUBLISHED:
        one, several = entry.epoch_seconds
        if entry.batch:
            before, after = entry.batch
            alone = one / (CIFAR10_IMAGES / before)
            # All of it as if it were the images': what speaks most for further GPUs.
            worker = Worker(0.0, alone / before)
            step = worker.image_seconds * after / entry.gpus
            step += all_reduce_seconds(entry.gpus, RESNET9_BYTES, V100_NVLINK)
            links = f"{one / (step * CIFAR10_IMAGES / after):.1f}"
        else:
            links = "-"
        times = one * entry.epochs[0] / (several * entry.epochs[1])
        rows.append(
            [
                entry.who,
                f"1, {entry.gpus}",
                "{}, {}".format(*entry.batch) if entry.batch else "-",
                f"{one:.2f}, {several:.2f}",
                f"{one / several:.1f}",
                links,
                "{}, {}".format(*entry.epochs),
                f"{times:.1f}",
            ]
        )
    return table(
        (
            "94 % on CIFAR-10",
            "V100s",
            "images a step",
            "s an epoch",
            "times",
            "by links alone",
            "epochs",
            "whole, times",
        ),
        rows,
    )


def records() -> str:
    """Two one-thread processes over one of two threads, by our records of the Xeon's road."""
    pairs = (
        ("plain: fp32, torchvision's loader", "plain", "plain, 2 processes"),
        ("resident, bf16, torch's operators", "resident, bf16", "resident, bf16, 2 processes"),
        ("compiled, by dot products", "avx512", "avx512, 2 processes"),
        ("compiled, by tiles", "amx", "amx, 2 processes"),
    )
    by_label: dict[str, dict[int, float]] = {}
    for _, record in store.read_records([ROOT / "results" / "intel-xeon-2-cores-road"]).records:
        seconds = metrics.seconds_of(record, LapKind.TRAIN)
        if record.counts and record.label and seconds is not None:
            by_label.setdefault(record.label, {})[record.seed] = seconds
    rows = []
    for name, threads, processes in pairs:
        values = [by_label[threads][seed] / by_label[processes][seed] for seed in by_label[threads]]
        rows.append(
            [
                name,
                f"{median(values):.2f}",
                f"{min(values):.2f}-{max(values):.2f}",
                str(len(values)),
            ]
        )
    return table(("two processes over two threads, Xeon", "times", "range", "n"), rows)


def runs() -> str:
    """Whole runs of `fast`, seed by seed against one process with a thread a core."""
    found: dict[tuple[int, int], dict[int, RunRecord]] = {}
    for _, record in store.read_records([RUNS]).records:
        key = record.setup.processes, record.setup.threads
        found.setdefault(key, {})[record.seed] = record
    base = _trained(found[1, 2])
    rows = []
    for (processes, threads), of in sorted(found.items()):
        trained = _trained(of)
        reached = [metrics.time_to_target_seconds(record) for record in of.values()]
        times = summary.summarize([trained[seed] / base[seed] for seed in of])
        accuracy = summary.summarize([100 * a for r in of.values() if (a := r.final_accuracy)])
        rows.append(
            [
                f"{count_of(processes, 'process')}, {count_of(threads, 'thread')} each",
                f"{median(math.inf if r is None else r for r in reached):.1f}",
                f"{median(trained.values()):.1f}",
                "1" if trained == base else _mean(times),
                _mean(accuracy),
                f"{sum(r is not None for r in reached)}/{len(of)}",
            ]
        )
    return table(
        ("`fast`", "to 99.4 %, s", "training, s", "times as long", "accuracy, %", "reached"), rows
    )


def _trained(runs: Mapping[int, RunRecord]) -> dict[int, float]:
    """Seconds by seed; what did not train stands out as nan."""
    return {
        seed: metrics.seconds_of(record, LapKind.TRAIN) or math.nan for seed, record in runs.items()
    }


def _mean(of: summary.MetricSummary) -> str:
    return f"{of.mean:.2f} ({of.low:.2f}-{of.high:.2f})"


def tables(measured: Measured) -> Iterator[tuple[str, str]]:
    """Every table by the name that docs/scaling.md has for its place."""
    link = loopback(measured)
    yield "machine", machine(measured)
    yield "shares", shares(measured)
    yield "ratios", ratios(measured)
    yield (
        "link",
        f"One message takes {1e6 * link.message_seconds:.0f} us, a byte "
        f"{1e9 / link.bytes_per_second:.2f} ns ({link.bytes_per_second / 1e9:.1f} GB/s).\n",
    )
    yield "options", options(measured)
    yield "strong", strong(measured)
    yield "weak", weak(measured)
    yield "whole", whole()
    yield "runs", runs()
    yield "records", records()
    yield "published", published()


def with_tables(text: str, computed: Mapping[str, str]) -> str:
    """A document with its computed parts as they should be."""
    return BLOCK.sub(lambda found: f"{found[1]}{computed[found[2]]}{found[3]}", text)


@app.command()
def model(
    write: Annotated[bool, typer.Option("--write", help="Into docs/scaling.md.")] = False,
) -> None:
    """Print the model's tables, or put them where they belong."""
    computed = dict(tables(Measured(json.loads(MEASUREMENTS.read_text(encoding="utf-8")))))
    if write:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(with_tables(text, computed), encoding="utf-8")
    else:
        print("\n".join(f"{name}\n\n{text}" for name, text in computed.items()), end="")


if __name__ == "__main__":
    sys.exit(run(app, "scaling_page.py", sys.argv[1:]))
