"""What the command line asks for, before this machine has been looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options say of processes and machines, and of what each process is to compute by."""

    processes: str | None
    """Over all machines; "auto" for as many as are fastest on this one."""
    machines: int | None
    machine_rank: int | None
    main_address: str | None
    device: str
    precision: str
    threads: int | None
    kernels: str
