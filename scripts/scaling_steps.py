"""What docs/scaling.md was fitted to: training steps of several batches, alone and beside others.

    .venv/bin/python scripts/scaling_steps.py docs/scaling.json --rounds 5

Every round takes every step once, in random order, by the real loop: one process alone, one with
a thread a core, several one-thread processes that do not know of each other, and the same joined.
All wait while one of them works. Leave the machine alone meanwhile: a minute or two a round.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Literal, get_args

import typer

from bench.launch import supervisor
from bench.machine.cores import usable_cores
from mnist_cnn.console import run
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import REFERENCE, Kernels, with_overrides

Mode = Literal["alone", "threads", "beside", "joined"]
"""One process of one thread; one of a thread a core; as many processes as cores, each for itself;
the same as one training."""
BATCHES = (16, 32, 64, 128, 256)
"""Images a step of one process alone."""
GLOBAL_BATCH = 128
MESSAGES = (4, 17_506 * 4, 1 << 20, 1 << 23)
"""Bytes of an all-reduce: the least, all gradients in fp32, and two that the bandwidth shows in."""
REPEATS = 200
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "gradient_as_bucket_view": {"gradient_as_bucket_view": True},
    "static_graph": {"static_graph": True},
    "bf16 hook": {"comm_hook": "bf16"},
}
"""Of DistributedDataParallel, which joins processes where torch's operators compute."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    path: Annotated[Path, typer.Argument(help="Where the measurements go (JSON).")],
    rounds: Annotated[int, typer.Option(min=1, help="Times that each step is measured.")] = 5,
    kernels: Annotated[
        list[str] | None, typer.Option(help="Some of what computes a step here; may be repeated.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=max(BATCHES), help="Of an epoch: enough to be timed.")
    ] = 3_200,
) -> None:
    """Measure steps and all-reduces on this machine's CPU."""
    cores = usable_cores()
    if cores < 2:
        raise UsageError("one core: there is nothing to share")
    chosen = kernels or _kernels_here()
    work: list[tuple[Mode, dict[str, Any]]] = [
        (mode, {"kernels": kind, "batch": batch, "images": images})
        for kind in chosen
        for mode in get_args(Mode)
        for batch in (BATCHES if mode == "alone" else (_share(mode, cores),))
    ]
    work += [("joined", {"bytes": size}) for size in MESSAGES]
    if "torch" in chosen:
        plain = {"kernels": "torch", "batch": GLOBAL_BATCH, "images": images}
        work += [("joined", {**plain, "options": name}) for name in OPTIONS]
    steps: list[dict[str, Any]] = []
    with _workers(cores) as workers:
        about = _asked(workers["alone"], {"about": True})[0]
        for number in range(rounds):
            for mode, what in random.Random(number).sample(work, len(work)):
                print(f"round {number + 1}: {mode} {what}", file=sys.stderr, flush=True)
                seconds = _asked(workers[mode], what)
                kept = {name: value for name, value in what.items() if name != "images"}
                steps.append({"round": number, "mode": mode, **kept, "seconds": seconds})
    found = {
        "machine": about,
        "date": datetime.now(UTC).date().isoformat(),
        "processes": cores,
        "images": images,
        "measured": steps,
    }
    path.write_text(_text(found), encoding="utf-8")


def _share(mode: Mode, cores: int) -> int:
    """Images a step that a process of this mode is told."""
    if GLOBAL_BATCH % cores:
        raise UsageError(f"{GLOBAL_BATCH} images do not divide among {cores} processes")
    return GLOBAL_BATCH // cores if mode == "beside" else GLOBAL_BATCH


def _kernels_here() -> list[str]:
    from mnist_cnn.kernels import native

    return [
        "torch",
        *(kind for kind in reversed(native.KINDS) if not native.unavailable_reason(kind)),
    ]


def _text(found: Mapping[str, Any]) -> str:
    """JSON with a line a measurement, so that a diff shows which are others."""
    head = json.dumps({name: found[name] for name in found if name != "measured"}, indent=1)
    lines = ",\n  ".join(json.dumps(step) for step in found["measured"])
    return f'{head.removesuffix("}").rstrip()},\n "measured": [\n  {lines}\n ]\n}}\n'


Worker = subprocess.Popen[str]


@contextmanager
def _workers(cores: int) -> Iterator[dict[Mode, list[Worker]]]:
    """The processes of each mode, which wait for what they are asked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers: dict[Mode, list[Worker]] = {
        "alone": [_start(1)],
        "threads": [_start(cores)],
        "beside": [_start(1) for _ in range(cores)],
        "joined": [
            _start(
                1,
                WORLD_SIZE=str(cores),
                LOCAL_WORLD_SIZE=str(cores),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            for rank in range(cores)
        ],
    }
    try:
        yield workers
    finally:
        for worker in (worker for group in workers.values() for worker in group):
            worker.kill()
            worker.wait()


def _start(threads: int, **variables: str) -> Worker:
    environment = {
        name: os.environ[name] for name in os.environ if name not in supervisor.foreign_variables()
    }
    environment |= supervisor.rank_variables(threads) | {"ACCELERATE_USE_CPU": "true"} | variables
    return subprocess.Popen(
        [sys.executable, __file__, "worker", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _asked(workers: list[Worker], what: Mapping[str, Any]) -> list[Any]:
    """Every worker's answer; they begin together.

    Raises:
        UsageError: one is gone.
    """
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(what) + "\n")
        worker.stdin.flush()
    answers = []
    for worker in workers:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            raise UsageError(f"a worker ended while it was asked {what}; see above")
        answers.append(json.loads(line))
    return answers


def worker(threads: int) -> None:
    """Answer, a line each, what is asked on standard input."""
    from bench.machine.environment import describe_environment, device_name
    from bench.measure import plan
    from bench.measure.accelerator import join
    from mnist_cnn.data.dataset import load

    # What torch or gloo may print is not an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    chosen = plan.resolve_plan(_recipe(GLOBAL_BATCH), "cpu", "bf16", threads, "torch")
    accelerator, _, _ = join(chosen)
    data = load().split("test")
    for line in sys.stdin:
        what = json.loads(line)
        answer: Any
        if "about" in what:
            environment = describe_environment("cpu", device_name("cpu"))
            answer = {
                name: getattr(environment, name)
                for name in ("cpu", "usable_cores", "virtual_machine", "torch", "commit", "dirty")
            }
        elif "bytes" in what:
            answer = _all_reduce(what["bytes"])
        else:
            accelerator.ddp_handler = _options(what.get("options"))
            count = what["images"]
            few = replace(
                data, train_images=data.train_images[:count], train_labels=data.train_labels[:count]
            )
            answer = _step(what["kernels"], what["batch"], threads, accelerator, few)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _recipe(batch: int) -> Any:
    return with_overrides(REFERENCE, 2, "resident", batch)


def _options(name: str | None) -> Any:
    """What Accelerate is to hand to DistributedDataParallel; None: nothing."""
    from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs

    if name is None:
        return None
    values = dict(OPTIONS[name])
    if "comm_hook" in values:
        values["comm_hook"] = DDPCommunicationHookType(values["comm_hook"])
    return DistributedDataParallelKwargs(**values)


def _step(kernels: Kernels, batch: int, threads: int, accelerator: Any, data: Any) -> float:
    """Seconds of a step of so many images (over all ranks), of an epoch after one not counted."""
    import torch

    from bench.measure import plan
    from mnist_cnn.context import TrainingContext
    from mnist_cnn.events import EpochTrained
    from mnist_cnn.kernels import native
    from mnist_cnn.train import seeded_model, train

    recipe = plan.resolve_plan(_recipe(batch), "cpu", "bf16", threads, kernels).recipe
    # As `launch.join` sets them: compiled code has threads of its own.
    torch.set_num_threads(1 if kernels in native.KINDS else threads)
    native.set_threads(threads if kernels in native.KINDS else 1)
    context = TrainingContext(recipe, accelerator, kernels)
    begin = seconds = 0.0
    for event in train(seeded_model(recipe, 0), context, data, 0):
        if isinstance(event, EpochTrained):
            now = perf_counter()
            begin, seconds = now, now - begin
            if event.epoch == recipe.epochs:
                return seconds / event.steps
    raise AssertionError("a training without epochs")


def _all_reduce(size: int) -> float:
    """Median seconds of summing so many bytes over all ranks."""
    import torch

    values = torch.zeros(size // 4)
    seconds = []
    for _ in range(REPEATS):
        torch.distributed.barrier()
        begin = perf_counter()
        torch.distributed.all_reduce(values)
        seconds.append(perf_counter() - begin)
    return median(seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(int(sys.argv[2]))
    else:
        sys.exit(run(app, "scaling_steps.py", sys.argv[1:]))
