"""Which network interface reaches another machine."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from mnist_cnn.errors import UsageError

_ELSEWHERE = "192.0.2.1"
"""An address that documents are written with (RFC 5737); nothing is sent to it."""


def find_interface(host: str, port: int, *, is_main: bool) -> str | None:
    """The network interface by which this machine reaches the others; None where none is known.

    Left to itself, gloo takes what this machine's own name means, which is often 127.0.0.1.

    Args:
        host: machine 0.
        port: it listens on.
        is_main: whether this is machine 0.
    """
    family, _, _, _, end = resolve_address(host, port)[0]
    # Machine 0's own name may mean a loopback address, by which no other machine reaches it.
    if is_main and ipaddress.ip_address(str(end[0]).partition("%")[0]).is_loopback:
        family, end = socket.AF_INET, (_ELSEWHERE, port)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(end)
            own = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == own for one in addresses):
            return name
    return None


def resolve_address(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    """What `socket.getaddrinfo` knows of a name and a port.

    Raises:
        UsageError: the name means nothing here.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--main-address: the name {host!r} means no address here; name one that every "
            "machine knows, or the number itself"
        ) from error
