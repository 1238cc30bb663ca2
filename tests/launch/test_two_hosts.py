"""Two machines that train together: two network namespaces with a cable between them.

Each is a network of its own with one address, as a machine has; what they share is the disk.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from bench.records.schema import RunRecord
from bench.records.store import read_records
from tests.commands import PYTHON, ROOT, SHORT_RUN, launch
from tests.launch.host import COMMAND, Host, ended
from tests.stand_ins import FEW_IMAGES

MAIN, PORT = "10.77.0.1", 29501
ADDRESS = f"{MAIN}:{PORT}"
TWO = ("--processes", "2", "--machines", "2", "--main-address", ADDRESS)


def both(hosts: tuple[Host, Host], *options: object) -> list[tuple[int, str, str]]:
    return ended(*(host.bench(*TWO, "--machine-rank", k, *options) for k, host in enumerate(hosts)))


def only_record(folder: Path) -> RunRecord:
    ((_, record),) = read_records([folder]).records
    return record


def refusal(error: str) -> str:
    """The one line that is not about waiting."""
    (line,) = [line for line in error.splitlines() if " starts 1 of " not in line]
    assert line.startswith("mnist-bench: error: "), error
    return line


def curve(record: RunRecord) -> list[object]:
    return [[epoch.loss for epoch in record.epochs], [e.correct for e in record.evaluations]]


@pytest.mark.thorough
def test_two_machines_learn_what_two_processes_of_one_do(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    for status, _, error in both(hosts, *SHORT_RUN, "--results-dir", tmp_path / "two"):
        assert status == 0, error
    record = only_record(tmp_path / "two")
    assert (record.status, record.setup.processes, record.setup.machines) == ("completed", 2, 2)
    assert record.setup.environment["GLOO_SOCKET_IFNAME"] == "veth0"
    assert MAIN not in record.model_dump_json()
    options = [*SHORT_RUN, "--results-dir", tmp_path / "one"]
    done = launch([*COMMAND, "--processes", "2", *options], **FEW_IMAGES)
    assert done.returncode == 0, done.stderr
    alone = only_record(tmp_path / "one")
    assert (alone.setup.processes, alone.setup.machines) == (2, 1)
    assert curve(record) == curve(alone)


@pytest.mark.thorough
def test_a_slow_network_that_loses_some_changes_times_alone(
    far_hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    for status, _, error in both(far_hosts, *SHORT_RUN, "--results-dir", tmp_path / "two"):
        assert status == 0, error
    options = [*SHORT_RUN, "--results-dir", tmp_path / "one"]
    done = launch([*COMMAND, "--processes", "2", *options], **FEW_IMAGES)
    assert done.returncode == 0, done.stderr
    record, alone = only_record(tmp_path / "two"), only_record(tmp_path / "one")
    assert curve(record) == curve(alone)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.thorough), 1])
def test_a_machine_that_is_lost_ends_the_other(
    hosts: tuple[Host, Host], tmp_path: Path, lost: int
) -> None:
    # So many epochs that it cannot be over before the machine is lost.
    options = (*TWO, "--results-dir", tmp_path, "--threads", "1", "--epochs", "5000")
    started = [host.bench(*options, "--machine-rank", k) for k, host in enumerate(hosts)]
    speaking = started[0].stderr
    assert speaking is not None
    assert any("epoch 2 of" in line for line in speaking)
    hosts[lost].switch_off()
    results = ended(*started)
    status, _, error = results[1 - lost]
    assert status == 1, error
    if lost == 1:  # the records are machine 0's
        record = only_record(tmp_path)
        assert record.status == "failed"
        assert record.reason is not None
        assert record.reason.startswith("no process of this machine died first, so another machine")
        assert "10.77" not in record.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param(
            ["--recipe", "reference", "--pipeline", "resident"],
            "the ranks do not agree on recipe.name: reference on rank 1, fast on rank 0",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["--seed", "7"],
            "the ranks do not agree on protocol.first_seed: 7 on rank 1, 0 on rank 0",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["--precision", "fp32"],
            "the ranks do not agree on precision: fp32 on rank 1, bf16",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["--kernels", "inductor"],
            "the ranks do not agree on kernels: inductor on rank 1",
            marks=pytest.mark.thorough,
        ),
        (["--device", "cuda"], "rank 1: no cuda device found by torch"),
        pytest.param(["--data-dir", "/dev/null"], "rank 1: ", marks=pytest.mark.thorough),
        (
            ["--machines", "4", "--processes", "4"],
            "parts of different launches: 4 on rank 1, 2 on rank 0",
        ),
    ],
)
def test_a_machine_that_is_about_to_do_something_else_is_named_on_all(
    hosts: tuple[Host, Host], tmp_path: Path, options: list[str], complaint: str
) -> None:
    common = [*TWO, "--recipe", "fast", "--precision", "bf16", "--kernels", "torch"]
    common += ["--results-dir", str(tmp_path)]
    results = ended(
        hosts[0].bench(*common, "--machine-rank", "0"),
        hosts[1].bench(*common, "--machine-rank", "1", *options),
    )
    assert [status for status, _, _ in results] == [2, 2], results
    lines = {refusal(error) for _, _, error in results}
    assert len(lines) == 1
    assert complaint in lines.pop()
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.thorough
def test_code_that_differs_on_one_machine_is_named(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for name in ("bench", "mnist_cnn"):
        shutil.copytree(ROOT / name, other / name)
    with (other / "mnist_cnn" / "optim.py").open("a") as file:
        file.write("# changed\n")
    options = (*TWO, "--results-dir", tmp_path / "results")
    results = ended(
        hosts[0].bench(*options, "--machine-rank", "0"),
        hosts[1].start([PYTHON, other / "bench/run.py", *options, "--machine-rank", "1"]),
    )
    for status, _, error in results:
        assert status == 2
        assert "the ranks do not agree on code" in refusal(error) or "on commit" in refusal(error)


@pytest.mark.slow
def test_a_wrong_rank_is_refused_where_it_was_given(hosts: tuple[Host, Host]) -> None:
    """Two machines that both say they are the main one."""
    ((status, _, error),) = ended(hosts[1].bench(*TWO, "--machine-rank", "0"))
    assert status == 2
    assert f"{MAIN} is no address of this one; give this one another rank" in refusal(error)


@pytest.mark.thorough
def test_a_rank_given_twice_is_found_out(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    options = ("--processes", "3", "--machines", "3", "--main-address", ADDRESS)
    results = ended(
        *(
            hosts[min(k, 1)].bench(*options, "--machine-rank", k, "--results-dir", tmp_path)
            for k in (0, 1, 1)
        )
    )
    assert [status for status, _, _ in results] == [2, 2, 2], results
    assert all("two processes say that they are rank 1" in error for _, _, error in results)


@pytest.mark.slow
def test_a_busy_port_is_refused_at_once(hosts: tuple[Host, Host]) -> None:
    server = (
        f"import signal, socket; s = socket.create_server(('', {PORT})); print(); signal.pause()"
    )
    busy = hosts[0].start([PYTHON, "-u", "-c", server])
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        ((status, _, error),) = ended(hosts[0].bench(*TWO, "--machine-rank", "0"))
    finally:
        busy.kill()
        busy.communicate()
    assert status == 2
    assert f"port {PORT} of this machine is in use; name another" in refusal(error)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.thorough), 1])
def test_waiting_for_a_machine_that_does_not_come_can_be_interrupted(
    hosts: tuple[Host, Host], rank: int
) -> None:
    waiting = hosts[rank].bench(*TWO, "--machine-rank", rank)
    assert waiting.stderr is not None
    assert any(" waits for " in line for line in waiting.stderr)
    waiting.send_signal(signal.SIGTERM)
    ((status, _, _),) = ended(waiting)
    assert status == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    "starter",
    [
        "accelerate",
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in ("dry-run", "torchrun", "slurm", "skypilot")
        ),
    ],
)
def test_every_way_to_start_two_machines_does(
    hosts: tuple[Host, Host], tmp_path: Path, starter: str
) -> None:
    options = [*map(str, SHORT_RUN), "--device", "cpu"]
    options += ["--results-dir", str(tmp_path / "results"), "--quiet"]
    started = [
        host.start(command_of(starter, host, k, options, tmp_path)) for k, host in enumerate(hosts)
    ]
    for status, _, error in ended(*started):
        assert status == 0, error
    record = only_record(tmp_path / "results")
    assert (record.status, record.setup.processes, record.setup.machines) == ("completed", 2, 2)


def command_of(
    starter: str, host: Host, number: int, options: list[str], folder: Path
) -> list[object]:
    """What is typed on, or runs on, machine `number`."""
    by_hand = ["env", f"PYTHON={PYTHON}", "ACCELERATE_USE_CPU=true", "MACHINES=2"]
    by_hand += [f"MACHINE_RANK={number}", f"MAIN_ADDRESS={MAIN}", f"MAIN_PORT={PORT}"]
    match starter:
        case "dry-run":
            asked = host.bench(*TWO, "--machine-rank", number, *options, "--dry-run")
            ((status, printed, error),) = ended(asked)
            assert status == 0, error
            return ["sh", "-c", printed]
        case "torchrun" | "accelerate":
            return [*by_hand, f"scripts/launch/{starter}", *options]
        case "slurm":
            # Each machine's part of the one job: a real srun would start both.
            (folder / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')
            (folder / "scontrol").write_text(f"#!/bin/sh\nprintf '%s\\n' {MAIN} 10.77.0.2\n")
            for tool in ("srun", "scontrol"):
                (folder / tool).chmod(0o755)
            job = [f"SLURM_SUBMIT_DIR={ROOT}", "SLURM_JOB_ID=7", "SLURM_NNODES=2"]
            job += ["SLURM_JOB_NODELIST=node[0-1]", f"SLURM_NODEID={number}", f"PYTHON={PYTHON}"]
            job += [f"PATH={folder}:{os.environ['PATH']}"]
            return ["env", *job, "scripts/launch/slurm-machines", *options]
        case _:
            task = yaml.safe_load((ROOT / "scripts/launch/skypilot.yaml").read_text())
            node = [f"SKYPILOT_NODE_IPS={MAIN}\n10.77.0.2", f"SKYPILOT_NODE_RANK={number}"]
            node += ["SKYPILOT_NUM_NODES=2", f"PYTHON={PYTHON}", f"OPTIONS={' '.join(options)}"]
            return ["env", *node, "bash", "-c", task["run"]]
