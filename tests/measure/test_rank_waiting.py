"""A rank that waits for others says for whom, and which variables say that there are any.

Ranks that meet are in tests/cli/test_run.py and tests/launch/test_two_hosts.py.
"""

from __future__ import annotations

import os
import socket

import pytest

from bench.measure import rank_agreement
from bench.measure.rank_agreement import RankAgreement
from mnist_cnn.errors import UsageError

LEFT_OVER = "if they are left over, unset RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_"


@pytest.fixture(autouse=True)
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of rank 0 of two, and nobody who started them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
        monkeypatch.delenv(name)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setattr(rank_agreement, "_NOTICE_SECONDS", 0.1)


@pytest.mark.slow
def test_rank_0_names_the_variables_that_are_left_over(capsys: pytest.CaptureFixture[str]) -> None:
    agreement = RankAgreement(timeout_seconds=1.0)
    with pytest.raises(UsageError, match=rf"the variables RANK=0 and WORLD_SIZE=2 .*{LEFT_OVER}"):
        agreement.require_same("topic", dict, dict)
    (notice,) = capsys.readouterr().err.splitlines()
    assert "rank 0 waits for the other 1 processes, 1 s at most; the variables RANK=0 " in notice


@pytest.mark.slow
def test_another_rank_is_not_mute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError, match=rf"nobody listened at 127.0.0.1:\d+ .*{LEFT_OVER}"):
        RankAgreement(timeout_seconds=1.0)
    (notice,) = capsys.readouterr().err.splitlines()
    assert LEFT_OVER in notice


def test_under_a_launcher_the_variables_are_not_blamed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(UsageError, match=r"nobody listened .*; start machine 0, and see"):
        RankAgreement(timeout_seconds=0.5)
    assert "left over" not in capsys.readouterr().err
