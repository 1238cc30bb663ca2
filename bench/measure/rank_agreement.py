"""Where all ranks meet before anything is trained, to find out that they are about to do the same.

They meet by the store that torch.distributed will meet by too, so before the process group exists:
a rank that cannot take part tells the others why, and none of them waits for it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib import metadata
from typing import Any, TypeVar

import torch
from torch import distributed

from bench.machine.repository import PROJECT, git_state, source_digest
from bench.text import printable
from mnist_cnn.distributed import PROCESS_GROUP_TIMEOUT
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import Rank

_T = TypeVar("_T")
_LOOKING_SECONDS = 0.05
_NOTICE_SECONDS = 5.0
"""After which somebody who waits is told what for."""
_LEAVING_SECONDS = 10.0
"""How long rank 0, which keeps the store, waits for the others to have read it."""


class RankAgreement:
    """All ranks of a launch; one alone agrees with itself.

    Args:
        timeout_seconds: how long the others may take to come.

    Raises:
        UsageError: from the constructor, when rank 0 cannot be reached.
    """

    def __init__(self, timeout_seconds: float = PROCESS_GROUP_TIMEOUT.total_seconds()) -> None:
        self._rank = Rank.from_environment()
        self._timeout_seconds = timeout_seconds
        self._store = None if self._rank.world_size == 1 else self._joined()
        self.machines = 1
        """Those that take part, as far as has been agreed: each has a first rank of its own."""

    def require_same(
        self, what: str, prepare: Callable[[], _T], facts: Callable[[_T], Mapping[str, object]]
    ) -> _T:
        """Prepare something on every rank, and make sure that it is the same on all.

        Args:
            what: a word for this occasion, the same on every rank.
            prepare: may refuse.
            facts: what of the outcome must be the same.

        Raises:
            UsageError: a rank refused, did not come, or says otherwise than another: on every rank
                the same line.
        """
        if self._store is None:
            return prepare()
        said: dict[str, object] = {}
        try:
            prepared = prepare()
            said["facts"] = {name: str(value) for name, value in facts(prepared).items()}
        except UsageError as error:
            said["refusal"] = str(error)
        except BaseException as error:
            self._say(what, {"refusal": f"{type(error).__name__}: {error}"})
            raise
        try:
            complaint = self._exchange(what, said)
        except distributed.DistError as error:
            raise UsageError("rank 0 has gone before all ranks had agreed; see what it says") from (
                error
            )
        if complaint is not None:
            raise UsageError(complaint)
        return prepared

    def _joined(self) -> Any:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return self._joined_apart(host, port)
        if self._rank.index == 0:
            try:
                return self._store_at(host, port, kept_here=True)
            except distributed.DistError as error:
                raise UsageError(
                    f"port {port} of this machine cannot be listened on; name another"
                ) from error
        self._wait_for(host, port)
        try:
            return self._store_at(host, port, kept_here=False)
        except distributed.DistError as error:
            raise UsageError(
                f"what listens at {host}:{port} is not rank 0 of this benchmark; name another port"
            ) from error

    def _joined_apart(self, host: str, port: int) -> Any:
        """A store of these ranks alone, where torchrun offers one of its own.

        That one outlives ranks that are started anew, with what they had told each other there:
        gloo and NCCL would connect to those that are gone.
        Source: https://github.com/pytorch/pytorch/issues/135712
        """
        shared = self._store_at(host, port, kept_here=False)
        key = self._key("store", "port")
        if self._rank.index == 0:
            own = self._store_at(host, 0, kept_here=True)
            shared.set(key, str(own.port))
        else:
            try:
                own = self._store_at(host, int(shared.get(key)), kept_here=False)
            except distributed.DistError as error:
                raise UsageError(
                    f"rank 0 did not come within {self._timeout_seconds:.0f} s; see what it says"
                ) from error
        # The process group is to meet there too.
        os.environ["MASTER_PORT"] = str(own.port)
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
        return own

    def _store_at(self, host: str, port: int, *, kept_here: bool) -> Any:
        """A `TCPStore`, which torch has types for under a private name only."""
        return distributed.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            is_master=kept_here,
            timeout=timedelta(seconds=self._timeout_seconds),
            # What comes of it is looked at while waiting, instead of after.
            wait_for_workers=False,
            # The process group is to use the same one.
            multi_tenant=True,
        )

    def _wait_for(self, host: str, port: int) -> None:
        """Until somebody listens there: torch's own waiting cannot be interrupted."""
        for _ in self._waiting(f"rank 0 at {host}:{port}"):
            try:
                socket.create_connection((host, port), timeout=2.0).close()
                return
            except OSError:
                continue
        raise UsageError(
            f"nobody listened at {host}:{port} within {self._timeout_seconds:.0f} s; start machine "
            "0, and see whether a firewall is between"
        )

    def _exchange(self, what: str, said: Mapping[str, object]) -> str | None:
        """Tell all, hear all; what is wrong, if anything is."""
        assert self._store is not None
        self._say(what, said)
        told: list[dict[str, Any]] = []
        complaint: str | None = None
        for _ in self._waiting(f"the other {self._rank.world_size - 1} processes"):
            count = self._store.add(self._key(what, "said"), 0)
            while len(told) < count:
                told.append(json.loads(self._store.get(self._key(what, str(len(told) + 1)))))
            complaint = _miscounted(told)
            if complaint is not None or len(told) >= self._rank.world_size:
                break
        else:
            complaint = self._missing(told)
        self._leave(what, len(told))
        self.machines = max(1, sum(one["local"] == 0 for one in told))
        return complaint or _refused(told) or _different(told)

    def _say(self, what: str, said: Mapping[str, object]) -> None:
        assert self._store is not None
        whole = {
            "rank": self._rank.index,
            "local": self._rank.local_index,
            "processes": self._rank.world_size,
            **said,
        }
        turn = self._store.add(self._key(what, "said"), 1)
        self._store.set(self._key(what, str(turn)), json.dumps(whole))

    def _leave(self, what: str, present: int) -> None:
        """Rank 0 last: the store is gone with it."""
        assert self._store is not None
        left = self._key(what, "left")
        gone = self._store.add(left, 1)
        end = time.monotonic() + _LEAVING_SECONDS
        while self._rank.index == 0 and gone < present and time.monotonic() < end:
            time.sleep(_LOOKING_SECONDS)
            gone = self._store.add(left, 0)

    def _key(self, what: str, name: str) -> str:
        # torchrun's store outlives the ranks that it starts anew.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return f"mnist-bench/{attempt}/{what}/{name}"

    def _waiting(self, whom: str) -> Iterator[None]:
        """Looks, one after the other, until the time is up."""
        began = time.monotonic()
        noticed = self._rank.local_index != 0
        while (waited := time.monotonic() - began) < self._timeout_seconds:
            yield
            if not noticed and waited > _NOTICE_SECONDS:
                noticed = True
                print(
                    f"mnist-bench: rank {self._rank.index} waits for {whom}, "
                    f"{self._timeout_seconds:.0f} s at most",
                    file=sys.stderr,
                )
            time.sleep(_LOOKING_SECONDS)

    def _missing(self, told: Sequence[Mapping[str, Any]]) -> str:
        here = {one["rank"] for one in told}
        missing = sorted(set(range(self._rank.world_size)) - here)
        return (
            f"of {self._rank.world_size} processes {len(here)} came within "
            f"{self._timeout_seconds:.0f} s; {_ranks(missing)} did not: see whether every machine "
            "was started, with its own --machine-rank"
        )


def describe_code() -> dict[str, object]:
    """What decides what is computed, whatever the options: the code and who calls it."""
    commit, dirty = git_state(PROJECT)
    return {
        "commit": commit,
        "uncommitted changes": dirty,
        "code": source_digest(PROJECT)[:12],
        "torch": torch.__version__,
        "accelerate": metadata.version("accelerate"),
    }


def _miscounted(told: Sequence[Mapping[str, Any]]) -> str | None:
    """Whether they were started as parts of one whole."""
    if len({one["processes"] for one in told}) > 1:
        return (
            f"the machines were started as parts of different launches: {_apart(told, 'processes')}"
            "; give all the same --processes and --machines"
        )
    numbers = [one["rank"] for one in told]
    twice = next((number for number in sorted(numbers) if numbers.count(number) > 1), None)
    if twice is not None:
        return (
            f"two processes say that they are rank {twice}; give every machine a --machine-rank "
            "of its own"
        )
    return None


def _refused(told: Sequence[Mapping[str, Any]]) -> str | None:
    """The first refusal, and whose it is where not all refuse alike."""
    refusals = {one["rank"]: str(one["refusal"]) for one in told if "refusal" in one}
    if not refusals:
        return None
    first = min(refusals)
    alike = len(refusals) == len(told) and len(set(refusals.values())) == 1
    return printable(refusals[first] if alike else f"rank {first}: {refusals[first]}")


def _different(told: Sequence[Mapping[str, Any]]) -> str | None:
    """The first fact that is not the same on all ranks, as each has it."""
    facts = [{"rank": one["rank"], **one["facts"]} for one in told]
    names = [name for name in facts[0] if name != "rank"]
    apart = [name for name in names if len({one.get(name) for one in facts}) > 1]
    if not apart:
        return None
    more = f" (and {', '.join(apart[1:4])}{' ...' if apart[4:] else ''})" if apart[1:] else ""
    return printable(
        f"the ranks do not agree on {apart[0]}: {_apart(facts, apart[0])}{more}; start all of the "
        "same code with the same options"
    )


def _apart(told: Sequence[Mapping[str, Any]], name: str) -> str:
    """``"256 on rank 1, 128 on ranks 0 and 2"``: the rarest first."""
    by_value: dict[str, list[int]] = {}
    for one in sorted(told, key=lambda one: int(one["rank"])):
        by_value.setdefault(str(one.get(name, "unknown")), []).append(one["rank"])
    rarest_first = sorted(by_value.items(), key=lambda item: (len(item[1]), -item[1][0]))
    return ", ".join(f"{value} on {_ranks(numbers)}" for value, numbers in rarest_first)


def _ranks(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    shown = [str(number) for number in numbers[:8]]
    if len(numbers) > len(shown):
        return f"ranks {', '.join(shown)} and {len(numbers) - len(shown)} more"
    return f"ranks {', '.join(shown[:-1])} and {shown[-1]}"
