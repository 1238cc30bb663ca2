"""This machine's place among those that train together, and how they find each other.

Everything that can be known before a rank is started is checked here: a rank that waits for
machines which cannot come waits two minutes.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from bench.machine.network import resolve_address
from mnist_cnn.errors import UsageError

_EXAMPLE = "HOST:PORT, such as 10.0.0.1:29500"


@dataclass(frozen=True, slots=True)
class HostPlace:
    """One machine's place; without a word, the only one's."""

    machines: int = 1
    """That train together."""
    rank: int = 0
    """Of this one: 0 is where the others find all."""
    host: str = "127.0.0.1"
    """Machine 0's, as the others reach it."""
    port: int = 0
    """It listens on; 0 for any that is free."""


def parse_host_place(machines: int | None, rank: int | None, address: str | None) -> HostPlace:
    """What the options say of this machine, as far as that alone can be right.

    Args:
        machines: how many train together.
        rank: which of them this is.
        address: HOST:PORT of machine 0.

    Raises:
        UsageError: they contradict each other, or one is missing.
    """
    if machines is None:
        for option, value in (("--machine-rank", rank), ("--main-address", address)):
            if value is not None:
                raise UsageError(f"{option} is for several machines; say how many: --machines M")
        return HostPlace()
    if machines < 1:
        raise UsageError(f"--machines must be at least 1, not {machines}")
    if rank is not None and not 0 <= rank < machines:
        known = "must be 0" if machines == 1 else f"must be 0 to {machines - 1}"
        raise UsageError(f"--machine-rank {known} of --machines {machines}, not {rank}")
    if machines == 1 and address is None:
        return HostPlace()
    if rank is None and machines > 1:
        raise UsageError(
            f"--machines {machines} needs --machine-rank: 0 on the machine that --main-address "
            f"names, up to {machines - 1} on the others"
        )
    if address is None:
        raise UsageError(f"--machines {machines} needs --main-address of machine 0: {_EXAMPLE}")
    host, port = _parse(address)
    return HostPlace(machines, rank or 0, host, port)


def check_host_place(here: HostPlace) -> None:
    """Whether machine 0 can be found by its name and, if this is it, listen there.

    Raises:
        UsageError: its name means nothing here, is another machine's, or its port is taken.
    """
    if here.port == 0:
        return
    addresses = [(family, end) for family, _, _, _, end in resolve_address(here.host, here.port)]
    if here.rank != 0:
        return
    if not any(_is_own_address(family, str(end[0])) for family, end in addresses):
        raise UsageError(
            f"--machine-rank 0 is for the machine that --main-address names, and {here.host} is no "
            "address of this one; give this one another rank, or name its own address"
        )
    with socket.socket() as listening:
        # As the ranks' store does: connections of an earlier run may still be closing.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("", here.port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is in use" if taken else f"cannot be listened on ({error.strerror})"
            raise UsageError(
                f"port {here.port} of this machine {why}; name another in --main-address, on every "
                "machine"
            ) from error


def _parse(address: str) -> tuple[str, int]:
    host, colon, digits = address.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0
    if not colon or not host or not 0 < port < 2**16:
        raise UsageError(f"--main-address must be {_EXAMPLE}, not {address!r}")
    return host, port


def _is_own_address(family: int, address: str) -> bool:
    with socket.socket(family) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
