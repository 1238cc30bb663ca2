"""The place of this machine among those that train together, checked before a rank is started.

A rank that waits for machines which cannot come waits two minutes, so whatever can be checked
before is checked here.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from bench.machine.network import resolve_address
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.rank import LOOPBACK

_EXAMPLE = "HOST:PORT, such as 10.0.0.1:29500"


@dataclass(frozen=True, slots=True)
class HostPlace:
    """The place of one machine; by default, that of a machine alone."""

    machines: int = 1
    """Number of machines that train together."""
    rank: int = 0
    """Number of this machine, from 0; the others meet at machine 0."""
    host: str = LOOPBACK
    """Name or address at which the other machines reach machine 0."""
    port: int = 0
    """Port that machine 0 listens on; 0 for any free port."""


def parse_host_place(machines: int | None, rank: int | None, address: str | None) -> HostPlace:
    """Read the place of this machine from the options.

    Args:
        machines: number of machines that train together; None for this one alone.
        rank: number of this machine.
        address: HOST:PORT of machine 0.

    Raises:
        UsageError: the options contradict each other, or one is missing.
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


def check_host_place(place: HostPlace) -> None:
    """Check that the name of machine 0 is known and, on machine 0, that its port is free.

    Raises:
        UsageError: the name is unknown here or is another machine's, or the port is in use.
    """
    if place.port == 0:
        return
    addresses = [(family, end) for family, _, _, _, end in resolve_address(place.host, place.port)]
    if place.rank != 0:
        return
    if not any(_is_own_address(family, str(end[0])) for family, end in addresses):
        raise UsageError(
            f"--machine-rank 0 is for the machine that --main-address names, and {place.host} is "
            "no address of this one; give this one another rank, or name its own address"
        )
    with socket.socket() as listening:
        # As the store of the ranks does: connections of an earlier run may still be closing.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK if place.machines == 1 else "", place.port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is in use" if taken else f"cannot be listened on ({reason_of(error)})"
            raise UsageError(
                f"port {place.port} of this machine {why}; name another in --main-address, on "
                "every machine"
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
