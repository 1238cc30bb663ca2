"""Which network interface reaches the other machines."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from mnist_cnn.errors import UsageError, reason_of

_LOOPBACK = "127.0.0.1"
_LOOPBACK_SECONDS = 5.0
_REMOTE_ADDRESS = "192.0.2.1"
"""An address for documentation (RFC 5737), on no machine; nothing is sent to it."""


def find_interface(host: str, port: int, *, is_main: bool) -> str | None:
    """The network interface through which this machine reaches the others; None if unknown.

    gloo's default is the address of this machine's own name, which is often 127.0.0.1.

    Args:
        host: name or address of machine 0.
        port: port on which machine 0 listens.
        is_main: whether this is machine 0.
    """
    family, _, _, _, address = resolve_address(host, port)[0]
    # The name of machine 0 may be a loopback address there, which other machines cannot reach.
    if is_main and ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        family, address = socket.AF_INET, (_REMOTE_ADDRESS, port)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own_address = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == own_address for entry in addresses):
            return name
    return None


def check_loopback() -> None:
    """Check that processes of this machine can reach each other.

    Raises:
        UsageError: the loopback interface is down or missing.
    """
    try:
        # Where the interface is down, listening may succeed all the same.
        with (
            socket.create_server((_LOOPBACK, 0)) as listening,
            socket.create_connection(listening.getsockname(), timeout=_LOOPBACK_SECONDS),
        ):
            pass
    except OSError as error:
        raise UsageError(
            f"processes cannot meet at {_LOOPBACK} ({reason_of(error)}): the loopback interface is "
            "down; start it (ip link set lo up), or leave --processes out"
        ) from error


def resolve_address(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    """The addresses of a name and a port, as `socket.getaddrinfo` returns them.

    Raises:
        UsageError: the name has no address.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"main address: the name {host!r} has no address here; use a name that every machine "
            "knows, or an IP address"
        ) from error
