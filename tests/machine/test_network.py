"""Whether the processes of this machine can reach each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine.network import check_loopback

ROOT = Path(__file__).resolve().parents[2]
CHECK = """
from bench.machine.network import check_loopback
from mnist_cnn.errors import UsageError
try:
    check_loopback()
except UsageError as error:
    print(error)
"""


def test_the_loopback_interface_works_here() -> None:
    check_loopback()


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a network namespace")
def test_a_loopback_interface_that_is_down_is_named_with_the_remedy() -> None:
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", CHECK],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip("namespaces are not allowed here")
    assert "the loopback interface is down; start it (ip link set lo up), or leave" in done.stdout
