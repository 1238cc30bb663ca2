"""All ranks agree, before anything is trained, that they are about to do the same.

They meet at the store that torch.distributed will use too, so before the process group exists: a
rank that cannot take part tells the others why, and no rank waits for it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib import metadata
from typing import Any, TypeVar

import torch
from torch import distributed

from bench.machine.repository import PROJECT, git_state, source_digest
from bench.measure.rank_ends import EndKind, LostRankError, first_end
from bench.measure.rank_reports import (
    RankReport,
    find_difference,
    find_miscount,
    find_missing,
    find_refusal,
)
from mnist_cnn.distributed import PROCESS_GROUP_TIMEOUT, listen_on_loopback
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import (
    LOOPBACK,
    Rank,
    is_one_machine,
    leftover_hint,
    prints_problems,
)

_T = TypeVar("_T")
_POLL_SECONDS = 0.05
_NOTICE_SECONDS = 5.0
"""Seconds of waiting after which the user is told what for."""
_LEAVING_SECONDS = 10.0
"""Seconds that rank 0, which keeps the store, waits until the others have read it."""


class RankAgreement:
    """The ranks of one launch; a process alone agrees with itself.

    Args:
        timeout_seconds: how long the other ranks may take to come.

    Raises:
        UsageError: from the constructor, when rank 0 cannot be reached.
    """

    def __init__(self, timeout_seconds: float = PROCESS_GROUP_TIMEOUT.total_seconds()) -> None:
        self._rank = Rank.from_environment()
        self._timeout_seconds = timeout_seconds
        self._store = None if self._rank.world_size == 1 else self._join_store()
        self.machines = 1
        """Number of machines that take part, known after the first agreement."""

    def require_same(
        self, topic: str, prepare: Callable[[], _T], facts: Callable[[_T], Mapping[str, object]]
    ) -> _T:
        """Prepare something on every rank, and require that it is the same on all.

        Args:
            topic: a word for this agreement, the same on every rank.
            prepare: makes the value; may refuse.
            facts: what of the value must be the same, by names that the user knows.

        Returns:
            The value of this rank.

        Raises:
            UsageError: a rank refused, did not come, or differs from another; every rank raises
                the same line.
        """
        if self._store is None:
            return prepare()
        report: dict[str, object] = {}
        try:
            prepared = prepare()
            report["facts"] = {name: str(value) for name, value in facts(prepared).items()}
        except UsageError as error:
            report["refusal"] = str(error)
        except BaseException as error:
            self._send(topic, {"refusal": f"{type(error).__name__}: {error}"})
            raise
        try:
            complaint = self._exchange(topic, report)
        except distributed.DistError as error:
            raise UsageError("rank 0 has gone before all ranks had agreed; see what it says") from (
                error
            )
        if complaint is not None:
            raise UsageError(complaint)
        return prepared

    def _join_store(self) -> Any:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return self._join_own_store(host, port)
        if is_one_machine():
            # The process group reads it too.
            host = os.environ["MASTER_ADDR"] = LOOPBACK
        if self._rank.is_main:
            try:
                return self._serve_store(host, port)
            except (distributed.DistError, OSError) as error:
                raise UsageError(
                    f"port {port} of this machine cannot be listened on; name another"
                ) from error
        self._wait_for_server(host, port)
        try:
            return self._open_store(host, port, is_server=False)
        except distributed.DistError as error:
            raise UsageError(
                f"what listens at {host}:{port} is not rank 0 of this benchmark; name another port"
            ) from error

    def _join_own_store(self, host: str, port: int) -> Any:
        """A store of these ranks alone, where torchrun offers one of its own.

        torchrun's store outlives ranks that are restarted, with what they wrote to it: gloo and
        NCCL would connect to ranks that are gone.
        Source: https://github.com/pytorch/pytorch/issues/135712
        """
        shared = self._open_store(host, port, is_server=False)
        key = self._key("store", "port")
        if is_one_machine():
            host = LOOPBACK
        if self._rank.is_main:
            own = self._serve_store(host, 0)
            shared.set(key, str(own.port))
        else:
            try:
                own = self._open_store(host, int(shared.get(key)), is_server=False)
            except distributed.DistError as error:
                raise UsageError(
                    f"rank 0 did not come within {self._timeout_seconds:.0f} s; see what it says"
                ) from error
        # The process group must use the same store.
        os.environ["MASTER_ADDR"] = host
        os.environ["MASTER_PORT"] = str(own.port)
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
        return own

    def _serve_store(self, host: str, port: int) -> Any:
        """Open the store on this rank, which keeps it for all; of one machine, on loopback only.

        Raises:
            DistError, OSError: the port cannot be listened on.
        """
        if host != LOOPBACK or os.name != "posix":
            return self._open_store(host, port, is_server=True)
        listening = listen_on_loopback(port)
        port = listening.getsockname()[1]
        # The store closes the socket.
        return self._open_store(host, port, is_server=True, listening=listening.detach())

    def _open_store(
        self, host: str, port: int, *, is_server: bool, listening: int | None = None
    ) -> Any:
        """A `TCPStore`; torch has types for it under a private name only.

        Args:
            host: name or address of rank 0.
            port: on which rank 0 listens.
            is_server: whether this is rank 0, which keeps the store.
            listening: descriptor of a socket that listens already; None for one on all interfaces.
        """
        return distributed.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            is_master=is_server,
            timeout=timedelta(seconds=self._timeout_seconds),
            # `_exchange` looks at each report while it waits for the others.
            wait_for_workers=False,
            # The process group uses the same store.
            multi_tenant=True,
            master_listen_fd=listening,
        )

    def _wait_for_server(self, host: str, port: int) -> None:
        """Wait until rank 0 listens; torch's own waiting cannot be interrupted."""
        for _ in self._poll(f"rank 0 at {host}:{port}"):
            try:
                socket.create_connection((host, port), timeout=2.0).close()
                return
            except OSError:
                continue
        remedy = leftover_hint() or "start machine 0, and see whether a firewall is between"
        raise UsageError(
            f"nobody listened at {host}:{port} within {self._timeout_seconds:.0f} s; {remedy}"
        )

    def _exchange(self, topic: str, report: Mapping[str, object]) -> str | None:
        """Send this rank's report and read all others.

        Returns:
            What is wrong, in one line; None where nothing is.
        """
        assert self._store is not None
        world_size = self._rank.world_size
        self._send(topic, report)
        reports: list[RankReport] = []
        complaint: str | None = None
        for _ in self._poll(f"the other {world_size - 1} processes"):
            count = self._store.add(self._key(topic, "said"), 0)
            while len(reports) < count:
                key = self._key(topic, str(len(reports) + 1))
                reports.append(json.loads(self._store.get(key)))
            complaint = find_miscount(reports)
            if complaint is not None or len(reports) >= world_size:
                break
        else:
            complaint = find_missing(reports, world_size, self._timeout_seconds)
            if hint := leftover_hint():
                complaint = f"{complaint}; {hint}"
        self._leave(topic, len(reports))
        self.machines = max(1, sum(report["local"] == 0 for report in reports))
        return complaint or find_refusal(reports) or find_difference(reports)

    def _send(self, topic: str, report: Mapping[str, object]) -> None:
        assert self._store is not None
        message = {
            "rank": self._rank.index,
            "local": self._rank.local_index,
            "processes": self._rank.world_size,
            **report,
        }
        turn = self._store.add(self._key(topic, "said"), 1)
        self._store.set(self._key(topic, str(turn)), json.dumps(message))

    def _leave(self, topic: str, present: int) -> None:
        """Leave the store, rank 0 last: the store ends with it."""
        assert self._store is not None
        key = self._key(topic, "left")
        gone = self._store.add(key, 1)
        end = time.monotonic() + _LEAVING_SECONDS
        while self._rank.is_main and gone < present and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            gone = self._store.add(key, 0)

    def _key(self, topic: str, name: str) -> str:
        # torchrun's store outlives the ranks that it restarts.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return f"mnist-bench/{attempt}/{topic}/{name}"

    def _poll(self, awaited: str) -> Iterator[None]:
        """Yield again and again until the time is up; say once on stderr what is awaited."""
        began = time.monotonic()
        has_noticed = not prints_problems()
        while (waited := time.monotonic() - began) < self._timeout_seconds:
            yield
            if (end := first_end(0.0)) is not None and end.kind != EndKind.LEFT:
                raise LostRankError(str(end))
            if not has_noticed and waited > _NOTICE_SECONDS:
                has_noticed = True
                notice = (
                    f"mnist-bench: rank {self._rank.index} waits for {awaited}, "
                    f"{self._timeout_seconds:.0f} s at most"
                )
                hint = leftover_hint()
                print(f"{notice}; {hint}" if hint else notice, file=sys.stderr, flush=True)
            time.sleep(_POLL_SECONDS)


def describe_code() -> dict[str, object]:
    """What decides the computation whatever the options are: the code and its libraries."""
    commit, dirty = git_state(PROJECT)
    return {
        "commit": commit,
        "uncommitted changes": dirty,
        "code": source_digest(PROJECT)[:12],
        "torch": torch.__version__,
        "accelerate": metadata.version("accelerate"),
    }
