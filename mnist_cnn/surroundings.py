"""The one door for environment variables that others set: each is used, ignored or refused.

Launchers, clusters and shells leave variables that Accelerate, PyTorch, Matplotlib and rich obey.
Both command lines call `settle_environment` before anything else. What it ignores it removes from
this process, so that neither a library nor a child obeys it.
"""

from __future__ import annotations

import fnmatch
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mnist_cnn import rank
from mnist_cnn.errors import UsageError

TRAINING_COMMANDS: Final = ("train", "run", "ab", "sweep")
"""Commands that train; `ab` and `sweep` start processes that do."""
_STARTING_COMMANDS: Final = ("ab", "sweep")
_OWN_PLACE_OPTIONS: Final = ("--machines", "--shard")
"""Options with which one process a task of a cluster is right."""


class Treatment(StrEnum):
    """What is done with a variable."""

    USED = "used"
    """It counts; a value that cannot be is refused."""
    IGNORED = "ignored"
    """It has no effect, whatever it is."""
    OVERRULED = "overruled"
    """It would change the training: it has no effect, and a line says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is done with the variables of a pattern."""

    pattern: str
    """Name of the variables, with ``*`` for any letters."""
    treatment: Treatment
    why: str
    """What the variable would do otherwise, and who reads it."""
    accepts: Callable[[str], bool] | None = None
    """Whether a value is possible, where the variable is used, or else harmless. None: where it is
    used all are possible, else none is harmless."""
    values: str = ""
    """The possible values, in words, for `Treatment.USED`."""
    only_training: bool = True
    """Whether it concerns commands that train only."""


_ACCELERATE_VARIABLES: Final = (
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_DYNAMO_BACKEND",
    "ACCELERATE_DYNAMO_MODE",
)
"""`accelerate launch` always sets these."""
_TRUE = ("y", "yes", "t", "true", "on", "1")
_FALSE = ("n", "no", "f", "false", "off", "0")


def _is_off(text: str) -> bool:
    return text.strip().lower() in ("", *_FALSE)


def _is_flag(text: str) -> bool:
    return text.lower() in (*_TRUE, *_FALSE)


def _is_one_of(*values: str) -> Callable[[str], bool]:
    return lambda text: text.strip().lower() in values


def _is_thread_count(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", text)) and int(text.split(",")[0]) > 0


_ALLOCATOR_ITEM: Final = r"\s*[a-z0-9_]+\s*:\s*(\[[^\]]*\]|[^,\[\]]+)"


def _is_allocator_setting(text: str) -> bool:
    """Whether PyTorch, which ends the process over other texts, can take it apart."""
    return not text.strip() or bool(
        re.fullmatch(rf"{_ALLOCATOR_ITEM}(,{_ALLOCATOR_ITEM})*,?\s*", text[:1000])
    )


def _are_interfaces(text: str) -> bool:
    """Whether all are network interfaces of this machine."""
    try:
        return bool([socket.if_nametoindex(name) for name in text.split(",")])
    except (OSError, ValueError):  # ValueError: a null character
        return False


def _is_usual_width(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,4}", text)) and 20 <= int(text) <= 1000


# The first rule whose pattern fits counts. Sources: accelerate/state.py, accelerator.py,
# utils/launch.py and utils/dataclasses.py of Accelerate 1.15; torch/_dynamo/config.py and
# torch/distributed of PyTorch 2.15; matplotlib/__init__.py 3.10; rich/console.py 14.
RULES: Final = (
    Rule(
        pattern="ACCELERATE_USE_CPU",
        treatment=Treatment.USED,
        accepts=_is_flag,
        values="true or false",
        why="Accelerate trains on the CPU, and other values end it",
    ),
    Rule(
        pattern="ACCELERATE_CPU_AFFINITY",
        treatment=Treatment.USED,
        accepts=_is_flag,
        values="1 or 0",
        why="Accelerate binds a rank to the cores beside its GPU; the record holds it",
    ),
    *(
        Rule(
            pattern=name,
            treatment=Treatment.USED,
            why="says that Accelerate started the process; its setting is always an argument",
        )
        for name in _ACCELERATE_VARIABLES
    ),
    Rule(
        pattern="ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        treatment=Treatment.OVERRULED,
        accepts=_is_one_of("", "1", "auto"),
        why="Accelerate divides each gradient by it, whatever its arguments are",
    ),
    *(
        Rule(
            pattern=f"ACCELERATE_USE_{name}",
            treatment=Treatment.OVERRULED,
            accepts=_is_off,
            why=f"Accelerate trains by {title}, which is another training",
        )
        for name, title in (
            ("DEEPSPEED", "DeepSpeed"),
            ("FSDP", "FSDP"),
            ("MEGATRON_LM", "Megatron-LM"),
            ("PARALLELISM_CONFIG", "its parallelism configuration"),
            ("SAGEMAKER", "SageMaker's library"),
        )
    ),
    Rule(
        pattern="ACCELERATE_TORCH_DEVICE",
        treatment=Treatment.OVERRULED,
        accepts=_is_off,
        why="Accelerate trains on that device instead of the one that is recorded",
    ),
    *(
        Rule(
            pattern=pattern,
            treatment=Treatment.IGNORED,
            why="settings of Accelerate that only matter with the variables above",
        )
        for pattern in (
            "ACCELERATE_*",
            "FSDP_*",
            "MEGATRON_LM_*",
            "PARALLELISM_CONFIG_*",
            "FORK_LAUNCHED",
        )
    ),
    Rule(
        pattern="OMP_NUM_THREADS",
        treatment=Treatment.USED,
        accepts=_is_thread_count,
        values="a number of threads, at least 1",
        why="PyTorch and Accelerate take their number of threads from it; the record holds it",
    ),
    Rule(
        pattern="TORCH_DISTRIBUTED_DEBUG",
        treatment=Treatment.USED,
        accepts=_is_one_of("off", "info", "detail"),
        values="OFF, INFO or DETAIL",
        why="PyTorch checks every collective call; the record holds it",
    ),
    *(
        Rule(
            pattern=pattern,
            treatment=Treatment.USED,
            accepts=_is_allocator_setting,
            values="settings such as expandable_segments:True",
            why="PyTorch's allocator takes its settings from it",
        )
        for pattern in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
    ),
    Rule(
        pattern="GLOO_SOCKET_IFNAME",
        treatment=Treatment.USED,
        accepts=_are_interfaces,
        values="network interfaces of this machine",
        why="gloo joins processes by them",
    ),
    Rule(
        pattern="TORCH_LOGS",
        treatment=Treatment.OVERRULED,
        accepts=_is_one_of(""),
        why="PyTorch would print while it is timed, and names that it does not know end it",
    ),
    *(
        Rule(
            pattern=pattern,
            treatment=Treatment.OVERRULED,
            accepts=_is_off,
            why="turns torch.compile off, while the record would name the compiler",
        )
        for pattern in ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")
    ),
    Rule(
        pattern="MNIST_BENCH_GUARD",
        treatment=Treatment.USED,
        why="the folder of the process that watches a run; `bench.launch.guard` drops one that is "
        "left over",
    ),
    Rule(
        pattern="MPLBACKEND",
        treatment=Treatment.IGNORED,
        why="Matplotlib loads it at once and may fail; figures are files and need no backend",
        only_training=False,
    ),
    *(
        Rule(
            pattern=pattern,
            treatment=Treatment.IGNORED,
            accepts=_is_usual_width,
            why="a width or height that no terminal has; others are used",
            only_training=False,
        )
        for pattern in ("COLUMNS", "LINES")
    ),
)
"""What is done with which variable. Those not named here are nobody's, or recorded as they are."""

_MPI_SIZES: Final = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_MPI_VARIABLES: Final = (
    *_MPI_SIZES,
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "MPI_LOCALRANKID",
)
"""Variables of mpirun that Accelerate reads as rank variables (utils/environment.py)."""
_SLURM_SIZE: Final = "SLURM_STEP_TASKS_PER_NODE"
"""Set by srun in its tasks: ``"2(x3)"`` or ``"2,1"``."""
_SLURM_TASKS: Final = re.compile(r"(?:^|,)(\d{1,7})(?:\(x(\d{1,7})\))?")

_overruled: list[str] = []


def settle_environment(words: Sequence[str], launch: str) -> list[str]:
    """Check the variables that others set, and remove those that must have no effect.

    Args:
        words: the command line, from the name of the command on.
        launch: how several processes of this program are started, for messages.

    Returns:
        What the user should know, one line each.

    Raises:
        UsageError: a variable cannot be used; the message names it and says what to do.
    """
    trains = bool(words) and words[0] in TRAINING_COMMANDS and "--help" not in words
    if trains:
        _settle_rank(words, launch)
        _settle_tasks(words, launch)
    else:
        # Nothing is trained together, so this process speaks for itself.
        rank.forget_variables()
    rules = [(name, find_rule(name)) for name in sorted(os.environ)]
    notices = [
        _settle(name, os.environ[name], rule)
        for name, rule in rules
        if rule is not None and (trains or not rule.only_training)
    ]
    return [notice for notice in notices if notice]


def find_rule(name: str) -> Rule | None:
    """The rule for a variable; None where nothing is done with it."""
    return next((rule for rule in RULES if fnmatch.fnmatchcase(name, rule.pattern)), None)


def overruled_variables() -> tuple[str, ...]:
    """Names of the variables that were removed from this process because they change a training."""
    return tuple(_overruled)


def wants_cpu() -> bool:
    """Whether ACCELERATE_USE_CPU asks for the CPU, as Accelerate reads it."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in _TRUE


def is_started_by_accelerate() -> bool:
    """Whether `accelerate launch` started this process, or its parent: it always sets all three."""
    return all(name in os.environ for name in _ACCELERATE_VARIABLES)


def check_all_started(command: str) -> None:
    """Refuse `accelerate launch --cpu --num_processes N`, which silently starts one process.

    Args:
        command: a command that starts several, for the message.

    Raises:
        UsageError: names that command, and the variables that show it.
    """
    has_port = "MASTER_PORT" in rank.present_variables()
    if wants_cpu() and is_started_by_accelerate() and has_port and not rank.is_launched():
        raise UsageError(
            "accelerate launch --cpu started one process although several were requested "
            f"(ACCELERATE_USE_CPU and MASTER_PORT without WORLD_SIZE); for two use: {command}; "
            "or unset MASTER_PORT"
        )


def _settle(name: str, text: str, rule: Rule) -> str:
    """Apply a rule to a variable; returns what the user should know, or nothing."""
    is_accepted = rule.accepts is not None and rule.accepts(text)
    if rule.treatment is Treatment.USED:
        if rule.accepts is not None and not is_accepted:
            shown = f"{name}={text[:40]!r} cannot be used" if text else f"{name} is empty"
            raise UsageError(f"{shown}: set it to {rule.values}, or unset it")
        return ""
    if rule.treatment is Treatment.IGNORED and is_accepted:
        return ""
    del os.environ[name]
    if rule.treatment is Treatment.IGNORED:
        return ""
    _overruled.append(name)
    if is_accepted:
        return ""
    return f"{name}={text[:40]!r} of the environment is ignored: {rule.why}"


def _settle_rank(words: Sequence[str], launch: str) -> None:
    """Accept a whole set of rank variables, or none."""
    remedy = f"unset {', '.join(rank.present_variables())}, or start with {launch}"
    problem = rank.variables_problem()
    if problem is not None:
        raise UsageError(f"the rank variables are no whole set: {problem}; {remedy}")
    if rank.is_alone_without_address():
        rank.forget_variables()
    if not rank.is_launched() or not rank.has_launcher():
        # Of another launch: a record would count restarts that were none.
        for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
            del os.environ[name]
    if words[0] in _STARTING_COMMANDS and rank.is_launched():
        names = ", ".join(rank.present_variables())
        raise UsageError(
            f"{words[0]} starts its own processes, and a launcher started this one ({names}): "
            "start it without a launcher, or unset these variables"
        )


def _settle_tasks(words: Sequence[str], launch: str) -> None:
    """Refuse to train once in each of several tasks of MPI or Slurm, which do not join."""
    has_place = rank.is_launched() or any(
        word.partition("=")[0] in _OWN_PLACE_OPTIONS for word in words
    )
    in_slurm = _SLURM_SIZE in os.environ
    for name in _MPI_SIZES:
        text = os.environ.get(name, "")
        # srun sets PMI_SIZE too, also for one task a machine: its own variable tells more.
        if not has_place and not in_slurm and text.strip() not in ("", "1"):
            raise UsageError(
                f"{name}={text[:40]!r}: MPI started several processes, and MPI does not join them; "
                f"start one with {launch}, or unset {name}"
            )
    for name in _MPI_VARIABLES:
        os.environ.pop(name, None)
    text = os.environ.get(_SLURM_SIZE, "")
    of_nodes = [(int(tasks), int(nodes or 1)) for tasks, nodes in _SLURM_TASKS.findall(text)]
    if has_place or sum(tasks * nodes for tasks, nodes in of_nodes) <= 1:
        return
    if max(tasks for tasks, _ in of_nodes) > 1:
        raise UsageError(
            f"{_SLURM_SIZE}={text[:40]!r}: srun started several tasks on a machine, and each would "
            f"train alone; use --ntasks-per-node=1 and start the others with {launch}, or unset "
            f"{_SLURM_SIZE}"
        )
    raise UsageError(
        f"{_SLURM_SIZE}={text[:40]!r}: srun started a task on each of several nodes, and each "
        "would train alone; join them with --machines and --machine-rank of mnist-bench run (as "
        "scripts/launch/slurm-machines does) or with torchrun, or start one with --ntasks=1; to "
        f"measure each by itself, unset {_SLURM_SIZE}"
    )
