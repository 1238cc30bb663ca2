"""Two machines, with a good cable between them or a bad one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.commands import PYTHON, ROOT, launch
from tests.launch.host import Host


@pytest.fixture
def bare_hosts() -> Iterator[tuple[Host, Host]]:
    """Two machines, nothing between them yet."""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("needs Linux with unshare, nsenter and ip")
    refused = launch(["unshare", "-Urn", "true"])
    if refused.returncode:
        pytest.skip(f"user namespaces are not allowed here: {refused.stderr.strip()}")
    keepers: list[subprocess.Popen[bytes]] = []
    hosts: list[Host] = []
    try:
        keepers.append(subprocess.Popen(["unshare", "-Urn", "sleep", "infinity"]))
        hosts.append(Host(keepers[0]))
        keepers.append(subprocess.Popen([*hosts[0].enter, "unshare", "-n", "sleep", "infinity"]))
        hosts.append(Host(keepers[1]))
        yield hosts[0], hosts[1]
        left = [process for host in hosts for process in host.processes()]
        _, left = psutil.wait_procs(left, timeout=60)
        assert not left, f"orphans: {[process.cmdline() for process in left]}"
    finally:
        for host in hosts:
            host.switch_off()
        for keeper in keepers:
            keeper.kill()
            keeper.wait()


def address(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    for number, host in enumerate(hosts):
        host.set_up(
            f"ip addr add 10.77.0.{number + 1}/24 dev veth{number}",
            f"ip link set veth{number} up",
            "ip link set lo up",
        )
    return hosts


@pytest.fixture
def hosts(bare_hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    first, second = bare_hosts
    first.set_up(f"ip link add veth0 type veth peer name veth1 netns {second.keeper.pid}")
    return address(bare_hosts)


@pytest.fixture
def far_hosts(bare_hosts: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """With 2 ms between them, and one frame in 200 lost."""
    first, second = bare_hosts
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/net/tun to make a bad cable of")
    link = [
        PYTHON,
        ROOT / "tests" / "stand_ins" / "lossy_link.py",
        "veth0",
        "veth1",
        "0.002",
        "0.005",
    ]
    with first.start(link) as cable:
        try:
            assert cable.stdout is not None
            if cable.stdout.readline() != "ready\n":
                cable.wait()
                assert cable.stderr is not None
                pytest.skip(f"no network devices can be made here: {cable.stderr.read()[-200:]}")
            first.set_up(f"ip link set veth1 netns {second.keeper.pid}")
            yield address(bare_hosts)
            cable.terminate()
            lost, carried = cable.stdout.readline().split()
            assert int(carried) > 1000  # else nothing went through it
            assert 0 < int(lost) < int(carried)
        finally:
            cable.kill()
