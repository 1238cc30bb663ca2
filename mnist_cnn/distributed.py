"""Joins the processes of a run, whichever launcher started them."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import psutil
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch import distributed

from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.rank import LOOPBACK, Rank

PROCESS_GROUP_TIMEOUT = timedelta(seconds=120)
"""Longest time a rank waits for the others (Accelerate's default: 30 minutes)."""
_INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"
"""Variable that names the network interface on which gloo listens."""


def listen_on_loopback(port: int) -> socket.socket:
    """A socket that listens for the ranks of this machine only; torch's own listens to all.

    Args:
        port: 0 for any free port.

    Raises:
        OSError: the port is in use.
    """
    return socket.create_server((LOOPBACK, port), backlog=socket.SOMAXCONN)


def meet_on_loopback(rank: Rank) -> Any:
    """Let the ranks of this machine meet where no other machine can reach them.

    Where a launcher keeps the place at which they meet, as torchrun does, it stays that place.

    Args:
        rank: this process.

    Returns:
        On rank 0 what must live until all have met; elsewhere None.

    Raises:
        UsageError: the port cannot be listened on.
    """
    port = int(os.environ["MASTER_PORT"])
    if os.name != "posix" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return None
    os.environ["MASTER_ADDR"] = LOOPBACK
    if not rank.is_main:
        return None
    try:
        listening = listen_on_loopback(port)
    except OSError as error:
        raise UsageError(
            f"MASTER_PORT={port} cannot be listened on ({reason_of(error)}): name another"
        ) from error
    # The process group takes the same store, because there is one at this port in this process.
    return distributed.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK,
        port,
        is_master=True,
        timeout=PROCESS_GROUP_TIMEOUT,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=listening.detach(),
    )


def use_loopback_interface() -> None:
    """Make gloo listen on the loopback interface only, unless the user has named another one.

    By itself it listens at the address of this machine's name, which others may reach.
    """
    running = psutil.net_if_stats()
    for name, addresses in psutil.net_if_addrs().items():
        if name in running and running[name].isup and LOOPBACK in [a.address for a in addresses]:
            os.environ.setdefault(_INTERFACE_VARIABLE, name)
            return


def process_group() -> InitProcessGroupKwargs:
    """The settings with which Accelerate joins the ranks."""
    return InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)


def broadcast_from_main(text: str, accelerator: Accelerator) -> str:
    """Return rank 0's text on every rank; every rank calls this."""
    if accelerator.num_processes == 1:
        return text
    texts = [text]
    broadcast_object_list(texts)
    return texts[0]
