"""Servers that misbehave, on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PAUSE_SECONDS = 0.05
"""Between two bytes of a server that trickles."""
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000000\r\n\r\n"


@contextmanager
def server(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server's address. Each connection gets what `answer` sends, until the event is set."""
    closing = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection, closing)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                if closing.is_set():
                    connection.close()
                    return
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        port = listening.getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            closing.set()
            socket.create_connection(("127.0.0.1", port)).close()  # wakes `accept`
            for thread in (accepting, *threads):
                thread.join()


@contextmanager
def trickling_server(headers: bytes = HEADERS) -> Iterator[str]:
    """A server that sends headers at once, then a byte now and then without end."""

    def trickle(connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(headers)
        while not closing.wait(PAUSE_SECONDS):
            connection.sendall(b" ")

    with server(trickle) as address:
        yield address


@contextmanager
def silent_server(answer: bytes) -> Iterator[str]:
    """A server that sends these bytes, then nothing, and keeps the connection."""

    def fall_silent(connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(answer)
        closing.wait()

    with server(fall_silent) as address:
        yield address


@contextmanager
def answering_server(answer: bytes) -> Iterator[str]:
    """A server that sends these bytes, whatever it is asked."""
    with server(lambda connection, _: connection.sendall(answer)) as address:
        yield address
