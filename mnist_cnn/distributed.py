"""Joins the processes of a run, whichever launcher started them."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import psutil
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from mnist_cnn.rank import LOOPBACK

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
