"""The ranks of one machine meet where no other machine can reach them. The processes are real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.launch.supervisor import supervise
from bench.records import store
from mnist_cnn.distributed import use_loopback_interface
from mnist_cnn.rank import is_one_machine
from tests.stand_ins import FEW_IMAGES

ROOT = Path(__file__).resolve().parents[2]
LOOPBACKS = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX's sockets")

DRIVER = """
import sys
from pathlib import Path

import psutil
import torch

from bench.measure.accelerator import join
from bench.measure.plan import resolve_plan
from bench.measure.rank_agreement import RankAgreement
from bench.measure.request import ComputeRequest
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import FAST

agreement = RankAgreement()
plan = agreement.require_same(
    "set-up",
    lambda: resolve_plan(FAST, ComputeRequest(device="cpu", kernels="torch", precision="fp32")),
    lambda plan: plan.facts(),
)
joined = join(plan, agreement.machines)
summed = joined.accelerator.reduce(torch.ones(3))
assert summed.tolist() == [2, 2, 2]
connections = psutil.Process().net_connections("tcp")
lines = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
lines.append(joined.setup.environment.get("GLOO_SOCKET_IFNAME", ""))
Path(sys.argv[1], str(Rank.from_environment().index)).write_text(" ".join(lines))
joined.accelerator.end_training()
"""


@pytest.mark.slow
def test_the_ranks_of_one_machine_listen_on_loopback_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the store at which they meet and the connections of gloo."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert supervise([sys.executable, "-c", DRIVER, str(tmp_path)], 2, threads=1) == 0
    for rank in ("0", "1"):
        *addresses, interface = (tmp_path / rank).read_text().split()
        assert addresses, "gloo or the store listens"
        assert set(addresses) <= LOOPBACKS
        assert "127.0.0.1" in [a.address for a in psutil.net_if_addrs()[interface]]


@pytest.mark.thorough
def test_a_whole_run_of_two_processes_listens_on_loopback_only(tmp_path: Path) -> None:
    """The processes of the command itself, seen from outside while they train."""
    command = [sys.executable, "-m", "bench", "run", "--recipe", "fast", "--epochs", "3"]
    command += ["--runs", "1", "--device", "cpu", "--processes", "2", "--kernels", "torch"]
    environment = {**os.environ, **FEW_IMAGES}
    environment.pop("GLOO_SOCKET_IFNAME", None)
    with subprocess.Popen(
        [*command, "--results-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "seed 0" in line:
                break
        tree = psutil.Process(process.pid).children(recursive=True)
        listening = [
            connection.laddr.ip
            for rank in tree
            for connection in rank.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        process.stderr.read()
        assert process.wait() == 0, said
    assert len(tree) == 3  # their supervisor, too
    assert listening
    assert set(listening) <= LOOPBACKS
    ((_, record),) = store.read_records([tmp_path]).records
    interface = record.setup.environment["GLOO_SOCKET_IFNAME"]
    assert "127.0.0.1" in [a.address for a in psutil.net_if_addrs()[interface]]


def test_an_interface_that_the_user_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    use_loopback_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"}, True),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"}, False),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1"}, False),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "main.example"}, False),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}, True),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "::1"}, True),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "localhost"}, True),
        ({}, False),
    ],
)
def test_one_machine_is_one_of_which_the_environment_says_so(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_one_machine() is expected


def test_a_port_in_use_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.measure.rank_agreement import RankAgreement
    from mnist_cnn.errors import UsageError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        values = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        values |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match=f"port {port} of this machine cannot be listened on"):
            RankAgreement(timeout_seconds=1)
