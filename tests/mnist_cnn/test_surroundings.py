"""Variables that others leave: each is used, ignored, or refused in one line that names it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import main as bench_main
from mnist_cnn import rank, surroundings
from mnist_cnn.__main__ import main as workload_main
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import Rank
from mnist_cnn.surroundings import RULES, Treatment, find_rule, settle_environment

ROOT = Path(__file__).resolve().parents[2]
WHOLE = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
ALL = tuple(WHOLE)

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """The door removes variables for good; here each test has its own."""
    before = dict(os.environ)
    for name in list(os.environ):
        if find_rule(name) is not None or name in ALL or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def settle(*words: str, **variables: str) -> list[str]:
    os.environ.update(variables)
    return settle_environment(words or ("run",), "torchrun")


# --- Rank variables


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"RANK": "1"}, "RANK=1 without WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 without RANK and WORLD_SIZE"),
        ({"WORLD_SIZE": "1", "RANK": "3"}, "RANK is less than WORLD_SIZE"),
        ({"WORLD_SIZE": "x", "RANK": "y"}, "RANK='y' is no whole number"),
        ({"WORLD_SIZE": "", "RANK": ""}, "RANK is empty"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "without LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "at least 1"),
        (WHOLE | {"RANK": "-1"}, "RANK='-1' is no whole number"),
        (WHOLE | {"RANK": "\u0661"}, "is no whole number"),
        (WHOLE | {"RANK": " 1"}, "is no whole number"),
        (WHOLE | {"RANK": "1_0"}, "is no whole number"),
        (WHOLE | {"WORLD_SIZE": "9" * 30}, "is no whole number"),
        (WHOLE | {"RANK": "2"}, "RANK=2, WORLD_SIZE=2 cannot be"),
        (WHOLE | {"LOCAL_RANK": "2"}, "LOCAL_RANK is less than LOCAL_WORLD_SIZE"),
        (WHOLE | {"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE is 1 to WORLD_SIZE"),
        (WHOLE | {"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE is 1 to WORLD_SIZE"),
        (WHOLE | {"RANK": "0"}, "LOCAL_RANK is at most RANK"),
        (WHOLE | {"MASTER_PORT": "http"}, "MASTER_PORT='http' is no port"),
        (WHOLE | {"MASTER_PORT": "65536"}, "MASTER_PORT='65536' is no port"),
        (WHOLE | {"MASTER_PORT": "0"}, "MASTER_PORT='0' is no port"),
        (WHOLE | {"MASTER_PORT": ""}, "without MASTER_PORT"),
        (WHOLE | {"MASTER_ADDR": "a b"}, "MASTER_ADDR='a b' is no address"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("main", [bench_main, workload_main], ids=["bench", "mnist_cnn"])
def test_rank_variables_are_a_whole_set_or_refused(
    variables: dict[str, str], complaint: str, main: type, capsys: Output
) -> None:
    os.environ.update(variables)
    assert main(["run" if main is bench_main else "train"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert complaint in said.err
    assert all(name in said.err for name in variables)
    assert "unset " in said.err
    assert "torchrun" in said.err


@pytest.mark.parametrize(
    "variables",
    [
        {},
        WHOLE,
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
        {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},  # clusters set them everywhere
        {"MASTER_PORT": "any"},
        WHOLE | {"WORLD_SIZE": "4", "RANK": "3"},  # two machines
        WHOLE | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
    ],
    ids=str,
)
def test_harmless_rank_variables_are_accepted(variables: dict[str, str]) -> None:
    assert settle(**variables) == []
    expected = variables if set(ALL) <= set(variables) else {}
    assert Rank.from_environment() == Rank(
        index=int(expected.get("RANK", 0)),
        local_index=int(expected.get("LOCAL_RANK", 0)),
        world_size=int(expected.get("WORLD_SIZE", 1)),
        local_world_size=int(expected.get("LOCAL_WORLD_SIZE", 1)),
    )


def test_a_process_alone_keeps_no_rank_without_a_place_to_meet() -> None:
    """Accelerate would begin a process group because of LOCAL_RANK, and miss MASTER_ADDR."""
    settle(WORLD_SIZE="1", RANK="0", LOCAL_RANK="0")
    assert rank.present_variables() == []


@pytest.mark.parametrize("command", ["sweep", "ab"])
def test_what_starts_processes_is_no_rank(command: str) -> None:
    with pytest.raises(UsageError, match=rf"{command} starts its own processes.*RANK.*unset"):
        settle(command, **WHOLE)


def test_other_commands_and_help_do_not_care(capsys: Output) -> None:
    os.environ |= {"RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "maybe"}
    assert bench_main(["run", "--help"]) == 0
    os.environ["RANK"] = "1"
    assert bench_main(["report", "absent"]) == 2
    said = capsys.readouterr()
    assert "Usage" in said.out
    assert said.err == "mnist-bench: error: cannot read absent: No such file or directory\n"


def test_a_leftover_set_is_named_where_no_launcher_is() -> None:
    settle(**WHOLE)
    assert rank.prints_problems()
    assert rank.leftover_hint() == (
        "the variables RANK=1 and WORLD_SIZE=2 say so: if they are left over, unset RANK, "
        "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT"
    )


@pytest.mark.parametrize("launcher", [{"TORCHELASTIC_RUN_ID": "none"}, Rank().variables()])
def test_under_a_launcher_the_first_rank_of_a_machine_speaks(launcher: dict[str, str]) -> None:
    os.environ.update(launcher)
    os.environ.update(WHOLE)
    assert not rank.prints_problems()
    assert rank.leftover_hint() == ""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
    assert rank.prints_problems()


def test_another_launchs_restarts_are_not_counted() -> None:
    settle(TORCHELASTIC_RESTART_COUNT="3")
    assert "TORCHELASTIC_RESTART_COUNT" not in os.environ
    settle(**WHOLE, TORCHELASTIC_RUN_ID="none", TORCHELASTIC_RESTART_COUNT="3")
    assert os.environ["TORCHELASTIC_RESTART_COUNT"] == "3"


# --- MPI and Slurm


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_processes_of_mpi_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}='2': .*torchrun, or unset {name}$"):
        settle(**{name: "2"})


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (("run",), {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}),
        (("run", "--machines", "2"), {"PMI_SIZE": "2", "PMI_RANK": "1"}),
        (("run",), {"PMI_SIZE": "2", "PMI_RANK": "1", **WHOLE}),
        (("run",), {"PMI_SIZE": "4", "SLURM_STEP_TASKS_PER_NODE": "1"}),
        (
            ("run", "--machines=4"),
            {"PMI_SIZE": "4", "SLURM_STEP_TASKS_PER_NODE": "1(x4)"},
        ),
        (("sweep", "--shard=1/2"), {"SLURM_STEP_TASKS_PER_NODE": "2"}),
    ],
    ids=str,
)
def test_one_task_a_machine_is_right_and_mpi_has_no_effect(
    words: tuple[str, ...], variables: dict[str, str]
) -> None:
    assert settle(*words, **variables) == []
    assert not [name for name in os.environ if name.startswith(("OMPI_", "PMI_", "MPI_"))]


@pytest.mark.parametrize("tasks", ["1(x2)", "1,1", "1(x2),1"])
def test_one_task_of_slurm_on_each_of_several_nodes_is_refused(tasks: str) -> None:
    """Each would train alone, and its record say so of a node of many."""
    with pytest.raises(UsageError, match=r"SLURM_STEP_TASKS_PER_NODE=.*--machines.*unset SLURM_"):
        settle(SLURM_STEP_TASKS_PER_NODE=tasks, PMI_SIZE="2")


@pytest.mark.parametrize("tasks", ["2", "2(x3)", "1,2", "1(x2),3"])
def test_several_tasks_of_slurm_on_a_machine_are_refused(tasks: str) -> None:
    with pytest.raises(UsageError, match=r"SLURM_STEP_TASKS_PER_NODE=.*--ntasks-per-node=1"):
        settle(SLURM_STEP_TASKS_PER_NODE=tasks)


# --- Accelerate and others


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "x"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
        ("TORCHDYNAMO_DISABLE", "1"),
        ("TORCH_LOGS", "dynamo"),
    ],
)
def test_what_would_change_a_training_is_overruled_and_said(name: str, text: str) -> None:
    (notice,) = settle(**{name: text})
    assert notice.startswith(f"{name}={text!r} of the environment is ignored: ")
    assert name not in os.environ
    assert name in surroundings.overruled_variables()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"),
        ("ACCELERATE_USE_FSDP", "false"),
        ("ACCELERATE_DEBUG_MODE", "perhaps"),
        ("FSDP_VERSION", "2"),
        ("FORK_LAUNCHED", "x"),
        ("MPLBACKEND", "module://no.such.backend"),
        ("COLUMNS", "0"),
        ("COLUMNS", "-5"),
        ("COLUMNS", "wide"),
        ("COLUMNS", "9" * 30),
        ("COLUMNS", ""),
        ("LINES", "0"),
    ],
)
def test_what_has_no_effect_is_removed_in_silence(name: str, text: str) -> None:
    assert settle(**{name: text}) == []
    assert name not in os.environ


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        ("ACCELERATE_USE_CPU", "maybe", "set it to true or false, or unset it"),
        ("ACCELERATE_USE_CPU", "", " is empty: set it to true or false"),
        ("OMP_NUM_THREADS", "all", "a number of threads, at least 1"),
        ("OMP_NUM_THREADS", "0", "a number of threads, at least 1"),
        ("TORCH_DISTRIBUTED_DEBUG", "much", "OFF, INFO or DETAIL"),
        ("GLOO_SOCKET_IFNAME", "nonsense0", "network interfaces of this machine"),
        ("GLOO_SOCKET_IFNAME", "", " is empty: set it to network interfaces"),
        ("PYTORCH_ALLOC_CONF", "max_split_size_mb", "settings such as expandable_segments:True"),
        ("PYTORCH_CUDA_ALLOC_CONF", "a:[1", "settings such as expandable_segments:True"),
    ],
)
def test_a_value_that_a_library_would_fail_on_is_refused(name: str, text: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}.*{remedy}"):
        settle(**{name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ACCELERATE_USE_CPU", "on"),
        ("ACCELERATE_MIXED_PRECISION", "fp8"),  # the precision is always an argument
        ("OMP_NUM_THREADS", "4,2"),
        ("COLUMNS", "120"),
        ("GLOO_SOCKET_IFNAME", socket.if_nameindex()[0][1]),
        ("PYTORCH_ALLOC_CONF", ""),
        ("PYTORCH_ALLOC_CONF", "expandable_segments:True, max_split_size_mb:128,"),
        ("PYTORCH_CUDA_ALLOC_CONF", "roundup_power2_divisions:[256:1,512:2],backend:native"),
    ],
)
def test_what_is_used_stays(name: str, text: str) -> None:
    assert settle(**{name: text}) == []
    assert os.environ[name] == text


def test_a_launch_that_started_one_of_several_is_told_from_a_leftover_port() -> None:
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_PORT": "29500"}
    surroundings.check_all_started("torchrun ...")
    os.environ |= dict.fromkeys(("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"), "NO")
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    with pytest.raises(UsageError, match=r"MASTER_PORT without WORLD_SIZE.*use: torchrun \.\.\."):
        surroundings.check_all_started("torchrun ...")


def test_every_rule_has_a_reason_and_the_documentation_names_it() -> None:
    page = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert rule.why
        assert (rule.values == "") == (rule.treatment is not Treatment.USED or not rule.accepts)
        assert f"`{rule.pattern}`" in page
    assert all(f"`{name}`" in page for name in (*ALL, "SLURM_STEP_TASKS_PER_NODE"))


def run_program(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("program", ["bench", "mnist_cnn"])
def test_a_stray_rank_prints_its_refusal(program: str) -> None:
    """Not one byte of output before: the process took itself for another launcher's second rank."""
    command = "run" if program == "bench" else "train"
    done = run_program(program, command, RANK="1", LOCAL_RANK="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "RANK=1, LOCAL_RANK=1 without WORLD_SIZE" in done.stderr


@pytest.mark.slow
def test_text_that_the_terminal_cannot_show_ends_nothing() -> None:
    done = run_program("bench", "verify", "nö\u202e", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2
    assert done.stderr.startswith("mnist-bench: error: ")
    assert done.stderr.count("\n") == 1
