"""What the options say of several machines: bad input is one line, and starts nothing."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, strategies as st

from bench.cli import main
from bench.launch.hosts import HostPlace, check_host_place, parse_host_place
from bench.measure.plan import check_device_count
from bench.measure.redaction import redact_addresses
from bench.records.store import read_records
from mnist_cnn.errors import UsageError
from tests.commands import BIN, ROOT, SHORT_RUN, launch
from tests.stand_ins import FEWER_IMAGES

MAIN = "--main-address"
TWO = ("--processes", "2", "--machines", "2")
LAUNCHERS = ("accelerate", "torchrun", "slurm-machines", "slurm-seeds")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([*TWO], "--machines 2 needs --machine-rank: 0 on the machine"),
        ([*TWO, "--machine-rank", "0"], "--machines 2 needs --main-address of machine 0"),
        ([*TWO, "--machine-rank", "2"], "--machine-rank must be 0 to 1 of --machines 2, not 2"),
        ([*TWO, "--machine-rank", "-1"], "--machine-rank must be 0 to 1 of --machines 2, not -1"),
        (["--machines", "0"], "--machines must be at least 1, not 0"),
        (["--machines", "1", "--machine-rank", "1"], "--machine-rank must be 0 of --machines 1"),
        (["--machine-rank", "0"], "--machine-rank is for several machines; say how many"),
        ([MAIN, "127.0.0.1:29500"], "--main-address is for several machines; say how many"),
        ([*TWO, "--machine-rank", "0", MAIN, "10.0.0.1"], "must be HOST:PORT, such as"),
        ([*TWO, "--machine-rank", "0", MAIN, "10.0.0.1:"], "must be HOST:PORT, such as"),
        ([*TWO, "--machine-rank", "0", MAIN, "10.0.0.1:0"], "must be HOST:PORT, such as"),
        ([*TWO, "--machine-rank", "0", MAIN, "10.0.0.1:65536"], "must be HOST:PORT, such as"),
        ([*TWO, "--machine-rank", "0", MAIN, ":29500"], "must be HOST:PORT, such as"),
        ([*TWO, "--machine-rank", "0", MAIN, "a\nb:c"], "must be HOST:PORT, such as"),
        (
            [*TWO, "--machine-rank", "1", MAIN, "no-such-host.invalid:29500"],
            "the name 'no-such-host.invalid' has no address here",
        ),
        (
            [*TWO, "--machine-rank", "0", MAIN, "192.0.2.1:29500"],
            "192.0.2.1 is no address of this one; give this one another rank",
        ),
        (
            ["--machines", "2", "--machine-rank", "0", MAIN, "127.0.0.1:29500"],
            "--machines 2 needs --processes: how many over all of them, 2 for one each",
        ),
        (
            ["--processes", "3", "--machines", "2", "--machine-rank", "0", MAIN, "127.0.0.1:29500"],
            "--processes is the number over all machines, and 3 do not divide among 2",
        ),
        (
            ["--processes=auto", "--machines=2", "--machine-rank=0", f"{MAIN}=127.0.0.1:29500"],
            "--processes auto is for one machine",
        ),
        (
            ["--machines", "1", MAIN, "127.0.0.1:29500"],
            "--main-address is for --processes; say how many",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--recipe", "fast", *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert complaint in output.err
    assert output.err.count("\n") == 1


def test_a_port_that_somebody_listens_on_is_refused_and_one_that_is_free_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of this machine is in use; name"):
            check_host_place(HostPlace(2, 0, "127.0.0.1", port))
        check_host_place(HostPlace(2, 1, "127.0.0.1", port))  # where it is another machine's
    check_host_place(HostPlace(2, 0, "127.0.0.1", port))


@given(st.text())
def test_an_address_is_read_or_refused(text: str) -> None:
    try:
        here = parse_host_place(2, 1, text)
    except UsageError:
        return
    assert text.strip().endswith(f":{here.port}") or text.strip().rpartition(":")[2].startswith("0")
    assert here.host in text


@pytest.mark.parametrize("address", ["10.0.0.1:29500", "node-1:29500", "[fe80::1]:29500"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    here = parse_host_place(4, 3, address)
    assert (here.machines, here.rank, here.port) == (4, 3, 29500)
    assert here.host == address.rpartition(":")[0].strip("[]")


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Devices:
        @staticmethod
        def device_count() -> int:
            return 4

    monkeypatch.setattr("torch.get_device_module", lambda _: Devices)
    check_device_count("cuda", 4, 8)
    check_device_count("cpu", 64, 64)
    with pytest.raises(UsageError, match="5 processes on this machine, which has 4 cuda devices"):
        check_device_count("cuda", 5, 5)
    with pytest.raises(UsageError, match="cannot share an MPS device"):
        check_device_count("mps", 2, 2)


# --dry-run


def printed(*options: str, **environment: str) -> list[str]:
    done = launch([BIN / "mnist-bench", "run", *options, "--dry-run"], ROOT, **environment)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return shlex.split(line)


@pytest.mark.slow
def test_the_command_of_one_process_says_everything() -> None:
    words = printed("--recipe", "fast", "--device", "cpu", "--label", "it's", "--threads=1")
    assert words[1] == str(ROOT / "bench" / "run.py")
    assert words[2:6] == ["--recipe", "fast", "--label", "it's"]
    assert words[6:8] == ["--device", "cpu"]
    assert words[8] == "--precision"
    assert words[9] in ("bf16", "fp32")
    assert words[10:] == ["--threads", "1"]


@pytest.mark.slow
def test_the_command_of_a_machine_has_its_place_and_no_other_launchers_words() -> None:
    words = printed(
        *("--processes", "4", "--machines", "2", "--machine-rank=1", MAIN, "127.0.0.1:29511"),
        *("--device", "cpu", "--precision", "fp32", "--threads", "1"),
        ACCELERATE_MIXED_PRECISION="fp16",
        ACCELERATE_USE_FSDP="true",
    )
    assert words[0] == "env"
    assert {"ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP"} <= set(words[1:5:1])
    assert {"ACCELERATE_USE_CPU=true", "OMP_NUM_THREADS=1"} <= set(words)
    start = words.index("torch.distributed.run")
    assert words[start + 1 : start + 11] == [
        *("--nnodes", "2", "--node_rank", "1", "--master_addr", "127.0.0.1"),
        *("--master_port", "29511", "--nproc_per_node", "2"),
    ]
    assert not {"--processes", "--machines", MAIN, "--dry-run"} & set(words)


@pytest.mark.thorough
def test_the_command_printed_is_one_that_runs(tmp_path: Path) -> None:
    options = [*map(str, SHORT_RUN), "--device", "cpu", "--results-dir", str(tmp_path)]
    words = printed("--processes", "2", *options)
    done = launch(["sh", "-c", shlex.join(words)], **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    ((_, record),) = read_records([tmp_path]).records
    assert (record.status, record.setup.processes, record.setup.machines) == ("completed", 2, 1)


@pytest.mark.thorough
def test_a_hostile_default_configuration_changes_nothing(tmp_path: Path) -> None:
    """Neither Accelerate's file nor what a launcher would have made of it."""
    config = tmp_path / "accelerate" / "default_config.yaml"
    config.parent.mkdir()
    config.write_text("distributed_type: FSDP\nmixed_precision: bf16\nnum_processes: 7\n")
    options = ["--processes", "2", *map(str, SHORT_RUN), "--precision", "fp32", "--device", "cpu"]
    done = launch(
        [BIN / "mnist-bench", "run", *options, "--kernels", "torch", "--results-dir", tmp_path],
        **FEWER_IMAGES,
        HF_HOME=str(tmp_path),
        MNIST_DATA_DIR=os.environ.get("MNIST_DATA_DIR", ""),
        ACCELERATE_MIXED_PRECISION="bf16",
        ACCELERATE_DYNAMO_BACKEND="INDUCTOR",
        ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4",
        ACCELERATE_USE_FSDP="true",
    )
    assert done.returncode == 0, done.stderr
    ((_, record),) = read_records([tmp_path]).records
    setup = record.setup
    assert (setup.processes, setup.precision, setup.dynamo_backend) == (2, "fp32", "no")


def test_a_recorded_command_names_no_host() -> None:
    words = ["run", MAIN, "node-1:29500", f"{MAIN}=node-1:29500", "--runs", "1"]
    assert redact_addresses(words) == [
        *("run", MAIN, "HOST:PORT", f"{MAIN}=HOST:PORT", "--runs", "1")
    ]


# scripts/launch


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_are_posix_shell(name: str) -> None:
    path = ROOT / "scripts" / "launch" / name
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_ask_for_what_they_are_not_told(name: str) -> None:
    done = launch([ROOT / "scripts" / "launch" / name])
    assert done.returncode != 0
    assert "MACHINES: number of machines" in done.stderr or "start this with sbatch" in done.stderr


def test_an_array_gives_each_job_its_seed(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    done = launch(
        [ROOT / "scripts/launch/slurm-seeds", "--label", "two words"],
        PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=str(ROOT),
        SLURM_ARRAY_TASK_ID="7",
        PYTHON="python3",
    )
    assert done.stdout.splitlines() == [
        *("python3", "bench/run.py", "--runs", "1", "--seed", "7", "--label", "two words")
    ]


def test_slurms_directives_are_ones_it_reads() -> None:
    """It stops reading at the first line that is no comment."""
    known = {"job-name", "array", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task"}
    for name in ("slurm-seeds", "slurm-machines"):
        lines = (ROOT / "scripts" / "launch" / name).read_text().splitlines()
        head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
        directives = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SB")]
        assert directives
        assert all(f"#SBATCH --{line}" in head for line in directives)
        names = {line.partition("=")[0] for line in directives}
        assert names <= known | {"exclusive", "time"}


SKYPILOT = {
    "name": str,
    "workdir": str,
    "num_nodes": int,
    "resources": dict,
    "envs": dict,
    "setup": str,
    "run": str,
}
"""Those of its fields that are used, by its documentation of YAML files (0.10) and its schema."""


def test_the_skypilot_task_has_fields_it_knows_and_shell_that_parses() -> None:
    task = yaml.safe_load((ROOT / "scripts/launch/skypilot.yaml").read_text())
    assert set(task) == set(SKYPILOT)
    assert all(isinstance(task[name], kind) for name, kind in SKYPILOT.items())
    assert set(task["resources"]) <= {"cpus", "accelerators"}
    assert all(isinstance(value, str) for value in task["envs"].values())
    for part in ("setup", "run"):
        subprocess.run(["sh", "-n"], input=task[part], text=True, check=True)


def test_a_record_says_on_how_many_machines_and_older_versions_cannot() -> None:
    from pydantic import ValidationError

    from tests.factories import make_record

    record = make_record(setup={"processes": 4, "machines": 2})
    values = json.loads(record.model_dump_json())
    assert type(record).model_validate(values).setup.machines == 2
    with pytest.raises(ValidationError, match="machines is not a field of schema_version 5"):
        type(record).model_validate(values | {"schema_version": 5})
    with pytest.raises(ValidationError, match="not as many on every machine"):
        make_record(setup={"processes": 3, "machines": 2})
    del values["setup"]["machines"]
    assert type(record).model_validate(values | {"schema_version": 5}).setup.machines == 1
