"""Faults of what surrounds a benchmark: disks, variables, networks, and files of strangers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil

from tests.commands import BIN, ROOT
from tests.faults.harness import ONE, TWO, Fault

_EPOCH = "epoch 1 of 3"
_REFUSED = "^mnist-bench: error: [^\n]*$"


def catalogue() -> list[Fault]:
    """All of them."""
    return [*_disks(), *_disks_in_a_run(), *_variables(), *_systems(), *_networks(), *_strangers()]


def _disks() -> Iterator[Fault]:
    """Found out before anything is trained."""
    mount = "mkdir $RESULTS && mount -t tmpfs -o {} tmpfs $RESULTS"
    for name, shell, namespaces, said in (
        ("is on a full disk", mount.format("size=4k"), "m", "free some space"),
        ("has no inodes left", mount.format("nr_inodes=1"), "m", "free some space"),
        ("is read-only", mount.format("ro"), "m", "file system is read-only"),
        ("takes no file of 512 bytes", "ulimit -f 1", "", "raise the limit"),
        ("is a file", "touch $RESULTS", "", "a file has the name"),
        ("is a link to itself", "ln -s $RESULTS $RESULTS", "", "a link is in the way"),
    ):
        yield Fault(
            name=f"the results folder {name}",
            command=ONE,
            shell=shell,
            namespaces=namespaces,
            code=2,
            said=f"cannot write to the results folder .*{said}.*choose another with --results-dir",
            unsaid="^run ",
        )
    yield Fault(
        name="the folder for checkpoints is read-only",
        command=(*ONE, "--checkpoint-every", "1", "--checkpoint-dir", "{folder}/disk"),
        shell="mount -t tmpfs -o ro tmpfs $DISK",
        namespaces="m",
        code=2,
        said="cannot keep checkpoints in .*: Read-only file system; .*mount it for writing$",
    )
    yield Fault(
        name="the current folder was removed",
        command=ONE,
        shell="mkdir $TMPDIR/gone && cd $TMPDIR/gone && rmdir $TMPDIR/gone",
        code=2,
        said="^mnist-bench: error: the current folder cannot be found.*; change to another$",
    )
    yield Fault(
        name="weights are to go to a full disk",
        command=(
            *("python", "-m", "mnist_cnn", "train", "--recipe", "fast", "--epochs", "3"),
            *("--save", "{folder}/disk/model.safetensors"),
        ),
        saves=False,
        shell="mount -t tmpfs -o nr_inodes=1 tmpfs $DISK",
        namespaces="m",
        code=2,
        said="^mnist_cnn: error: cannot write .*: No space left on device; free some space there$",
    )
    yield Fault(
        name="a report is to go to a full disk",
        command=(
            "mnist-bench",
            "report",
            "results",
            "--to",
            "csv",
            "--output",
            "{folder}/disk/a",
        ),
        saves=False,
        shell="mount -t tmpfs -o size=4k tmpfs $DISK",
        namespaces="m",
        code=2,
        said="^mnist-bench: error: cannot write .*: No space left on device; free some space",
    )


def _disks_in_a_run() -> Iterator[Fault]:
    """The record of what was measured is kept elsewhere, and no further run is trained."""
    for name, act in (("fills up", _fill), ("becomes read-only", _make_read_only)):
        yield Fault(
            name=f"the results folder {name} in the first of two runs",
            shell="mkdir $RESULTS && mount -t tmpfs -o size=1m tmpfs $RESULTS",
            namespaces="m",
            awaited=_EPOCH,
            act=act,
            kept=("completed",),
            said=r"^mnist-bench: error: the record could not be saved in .*; then: ",
            within_seconds=None,
            in_ci=name == "fills up",
        )
    yield Fault(
        name="the results folder is removed in the first of two runs",
        awaited=_EPOCH,
        act=lambda process: shutil.rmtree(_variable(process, "RESULTS")),
        code=0,
        statuses=("completed", "completed"),
        within_seconds=None,
    )
    yield Fault(
        name="the folder for checkpoints fills up in a run",
        command=(*ONE, "--checkpoint-every", "1", "--checkpoint-dir", "{folder}/disk"),
        shell="mount -t tmpfs -o size=1m tmpfs $DISK",
        namespaces="m",
        awaited=_EPOCH,
        act=lambda process: _fill(process, Path(_variable(process, "DISK"))),
        statuses=("failed",),
        reason="checkpoint.* cannot be written .No space left on device.: free some space",
    )


def _variable(process: psutil.Process, name: str) -> str:
    return process.environ()[name]


def _fill(process: psutil.Process, folder: Path | None = None) -> None:
    """Write to a disk that only the process sees until it takes no more."""
    folder = folder or Path(_variable(process, "RESULTS"))
    seen = Path(f"/proc/{process.pid}/root") / folder.relative_to("/")
    with suppress(OSError), (seen / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _make_read_only(process: psutil.Process) -> None:
    subprocess.run(
        [
            *("nsenter", "-t", str(process.pid), "-U", "-m", "--preserve-credentials"),
            *("mount", "-o", "remount,ro", _variable(process, "RESULTS")),
        ],
        check=True,
    )


def _variables() -> Iterator[Fault]:
    """Each is used, ignored, overruled or refused, and who asks for something hears of it."""
    for variables, said in (
        ({"RANK": "1"}, "RANK=1 without WORLD_SIZE; unset RANK"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK; unset WORLD_SIZE"),
        ({"WORLD_SIZE": "x", "RANK": "y"}, "RANK='y' is no whole number; unset RANK, WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "without LOCAL_RANK.*; unset "),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "or unset OMPI_COMM_WORLD_SIZE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2"}, "or unset SLURM_STEP_TASKS_PER_NODE"),
        ({"OMP_NUM_THREADS": "x"}, "OMP_NUM_THREADS='x' cannot be used.*or unset it"),
        ({"ACCELERATE_USE_CPU": "maybe"}, "ACCELERATE_USE_CPU='maybe' cannot be used"),
        ({"GLOO_SOCKET_IFNAME": "nonsense0"}, "GLOO_SOCKET_IFNAME='nonsense0' cannot be used"),
        ({"PYTORCH_ALLOC_CONF": "x"}, "PYTORCH_ALLOC_CONF='x' cannot be used.*or unset it"),
    ):
        yield Fault(
            name=f"{_joined(variables)} left over",
            command=ONE,
            environment=variables,
            code=2,
            said=f"^mnist-bench: error: .*({said})",
        )
    for variables, said in (
        ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP='true' .* is ignored"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "ACCELERATE_GRADIENT_.* is ignored"),
        ({"MNIST_BENCH_GUARD": "12"}, "MNIST_BENCH_GUARD of the environment is ignored"),
        ({"TORCH_LOGS": "x"}, "TORCH_LOGS='x' .* is ignored"),
        ({"MPLBACKEND": "nonsense"}, ""),
        ({"COLUMNS": "1", "LINES": "-3"}, ""),
        ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, ""),
        ({"TMPDIR": "{folder}/none"}, ""),
        ({"GIT_DIR": "{folder}/none"}, ""),
        ({"PYTHONWARNINGS": "error"}, ""),
    ):
        yield Fault(
            name=f"{_joined(variables)} in the environment",
            command=ONE,
            environment=variables,
            code=0,
            statuses=("completed",),
            said=said,
            unsaid="" if said else "^mnist-bench: ",
        )
    yield Fault(
        name="MASTER_PORT=99999999 is left over, for two processes",
        command=TWO,
        environment={"MASTER_PORT": "99999999"},
        code=0,
        statuses=("completed", "completed"),
    )


def _joined(variables: Mapping[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in variables.items()).replace("{folder}/", "")


def _systems() -> Iterator[Fault]:
    """What a container may lack."""
    yield Fault(
        name="/proc is not mounted",
        command=ONE,
        shell="mount -t tmpfs tmpfs /proc",
        namespaces="m",
        code=2,
        said="^mnist-bench: error: /proc is not mounted.*: mount -t proc proc /proc$",
    )
    yield Fault(
        name="the loopback interface is down, for two processes",
        command=TWO,
        namespaces="mn",
        code=2,
        said="the loopback interface is down; start it",
    )
    yield Fault(
        name="the loopback interface is down, for one process",
        command=ONE,
        namespaces="mn",
        code=0,
        statuses=("completed",),
    )
    yield Fault(
        name="git fails",
        command=ONE,
        around=_failing_git,
        made="a program `git` that fails",
        code=0,
        statuses=("completed",),
        said="the records name no commit: git failed",
    )
    yield Fault(
        name="a library is torn",
        command=ONE,
        around=_torn_library,
        made="a `numpy` on PYTHONPATH that cannot be imported",
        said=_REFUSED,
    )


@contextmanager
def _failing_git(folder: Path) -> Iterator[dict[str, str]]:
    (folder / "bin").mkdir()
    program = folder / "bin" / "git"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    yield {"PATH": os.pathsep.join([str(program.parent), str(BIN), os.environ["PATH"]])}


@contextmanager
def _torn_library(folder: Path) -> Iterator[dict[str, str]]:
    (folder / "torn").mkdir()
    (folder / "torn" / "numpy.py").write_text("raise ImportError('numpy is torn')\n")
    yield {"PYTHONPATH": f"{folder / 'torn'}{os.pathsep}{ROOT}"}


def _networks() -> Iterator[Fault]:
    by_hand = "get the four files from another machine"
    answers: tuple[tuple[str, bytes | None], ...] = (
        ("refuses", None),
        ("is silent", b""),
        ("answers with garbage", b"\x01\x1b[31m\xff" * 99),
        ("serves something else", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"),
        ("answers with a header of 60,000 letters", b"HTTP/1.1 200 " + b"x" * 60_000 + b"\r\n\r\n"),
    )
    for name, answer in answers:
        yield Fault(
            name=f"the network {name} while MNIST is fetched",
            command=("mnist-bench", "data"),
            saves=False,
            around=_proxy(answer),
            made=f"a proxy that {name}",
            environment={
                "XDG_CACHE_HOME": "{folder}/cache",
                "PIP_DEFAULT_TIMEOUT": "2",
                "PIP_RETRIES": "0",
            },
            code=2,
            said=by_hand,
            within_seconds=None,
        )
    yield Fault(
        name="MNIST is not there, and the network is not to be used",
        command=("mnist-bench", "data", "--offline"),
        saves=False,
        environment={"XDG_CACHE_HOME": "{folder}/cache"},
        code=2,
        said="run `mnist-bench data` with a network, or `mnist-bench data --from DIR`",
    )


def _proxy(answer: bytes | None) -> Callable[[Path], AbstractContextManager[Mapping[str, str]]]:
    """A proxy of the whole network: nobody listens (None), or it gives an answer and waits."""

    @contextmanager
    def listening(_: Path) -> Iterator[dict[str, str]]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"http://127.0.0.1:{server.getsockname()[1]}"
            if answer is None:
                server.close()
            else:
                threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
            # No index of this machine, and none of its folders with packages.
            index = {"PIP_INDEX_URL": f"{address}/simple", "UV_INDEX_URL": f"{address}/simple"}
            nothing = dict.fromkeys(("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "NO_PROXY"), "")
            configuration = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}
            proxies = dict.fromkeys(("http_proxy", "https_proxy"), address)
            yield {**index, **nothing, **configuration, **proxies}

    return listening


def _answer(server: socket.socket, answer: bytes) -> None:
    connections = []
    with suppress(OSError):
        while True:
            connections.append(server.accept()[0])
            with suppress(OSError):
                connections[-1].sendall(answer)


def _strangers() -> Iterator[Fault]:
    """Files of strangers, beside one good record: it is read, they are named."""
    named = r"strange\S*: \w"
    for name, make in _STRANGE.items():
        for command, code in (("report", 0), ("verify", 1)):
            if command == "report" and name in _COUNTED:
                said, printed = "", "2 records in"
            elif command == "report":
                said, printed = named, "1 record in"
            else:
                said, printed = "", named
            yield Fault(
                name=f"{name} among the records, for `{command}`",
                command=("mnist-bench", command, "{folder}/strange"),
                saves=False,
                shell="ulimit -v 2000000",
                around=_beside_a_record(make),
                made="in a folder with a good record; 2 GB of address space",
                code=code,
                unsaid=r"\x1b|Traceback",
                in_ci=(name, command) == ("a pipe", "report"),
                said=said,
                printed=printed,
            )
    yield Fault(
        name="a zip of a gigabyte of zeros, for `report`",
        command=("mnist-bench", "report", "{folder}/strange/strange.zip"),
        saves=False,
        shell="ulimit -v 2000000",
        around=_beside_a_record(_zip_bomb),
        made="it is named itself; 2 GB of address space",
        code=2,
        said=r"strange\.zip\S*: .*larger",
    )


def _beside_a_record(
    make: Callable[[Path], object],
) -> Callable[[Path], AbstractContextManager[Mapping[str, str]]]:
    @contextmanager
    def files(folder: Path) -> Iterator[dict[str, str]]:
        (folder / "strange").mkdir()
        shutil.copy(_GOOD, folder / "strange" / "good.json")
        make(folder / "strange" / "strange.json")
        yield {}

    return files


def _with(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(_GOOD.read_text()) | changes), encoding="utf-8")


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", bytes(1 << 30))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


_GOOD = min((ROOT / "results").glob("*/*.json"))
_STRANGE: Mapping[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link out of the folder": lambda path: path.symlink_to("/etc/passwd"),
    "a file of a terabyte": _sparse,
    "JSON of a million brackets": lambda path: path.write_text("[" * 10**6),
    "a number of a million digits": lambda path: path.write_text('{"seed": ' + "9" * 10**6 + "}"),
    "a run of number 10^12": lambda path: _with(path, run_id="0" * 12, run_index=10**12),
    "escape sequences in a label": lambda path: _with(
        path, run_id="0" * 12, label="\x1b[2J\x1b]0;title\x07"
    ),
    "escape sequences in a name": lambda path: path.with_name("\x1b[2Jstrange.json").touch(),
    "half a record": lambda path: path.write_bytes(_GOOD.read_bytes()[:2000]),
    "bytes that are no text": lambda path: path.write_bytes(bytes(range(256)) * 40),
}
_COUNTED = ("a run of number 10^12", "escape sequences in a label")
"""Those that are records: `report` shows them, and only `verify` asks whether they can be."""
