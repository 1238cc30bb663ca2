"""The one door to files: what is read, what is refused, and what no writer touches."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from mnist_cnn import disk
from mnist_cnn.errors import reason_of
from mnist_cnn.leftovers import sweep_files
from tests.interruptions import interrupted_everywhere

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
ROOT = Path(__file__).resolve().parents[2]
WRITERS: list[Callable[[Path, bytes], None]] = [
    disk.replace_file,
    disk.write_new_file,
    disk.append_line,
]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pipes
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "zero", "loop", ".", "absent", "n" * 300, "a\0b"):
        with pytest.raises(OSError, match=r".") as refusal:
            disk.read_file(tmp_path / name, 10)
        assert reason_of(refusal.value)


@pytest.mark.parametrize("name", ["r" * 80 + ".json", "\u00e4" * 60, "short"])
def test_a_probe_has_a_name_as_long_as_the_file_that_will_be_written(name: str) -> None:
    """In bytes: a file system that takes the one takes the other."""
    probe = disk.probe_name(name)
    assert len(os.fsencode(probe)) == max(len(os.fsencode(name)), len(disk.probe_name("")))
    assert probe.startswith(".probe")
    assert probe != disk.probe_name(name), "two processes may try at once"


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    assert disk.read_file(path, 10) == bytes(10)
    with pytest.raises(OSError, match="it is larger than 9 bytes"):
        disk.read_file(path, 9)
    with path.open("wb") as file:
        file.truncate(2**40)  # one tebibyte of nothing
    with pytest.raises(OSError, match="it is larger than 1,000 bytes"):
        disk.read_file(path, 1000)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\xef\xbb\xbfa", "it is UTF-8 with a byte order mark: save it as plain UTF-8"),
        ("a".encode("utf-16"), "it is UTF-16: save it as plain UTF-8"),
        ("a".encode("utf-32"), "it is UTF-32: save it as plain UTF-8"),
        ("aé".encode("latin-1"), "byte 1 is not UTF-8: save it as plain UTF-8"),
    ],
)
def test_another_encoding_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        disk.read_text(tmp_path / "file", 100)


@given(st.binary(max_size=20))
def test_text_is_utf8_or_refused_in_one_line(content: bytes) -> None:
    reason = ""
    try:
        assert disk.decode(content).encode() == content
    except ValueError as error:
        reason = str(error)
    assert reason == "" or reason.endswith(": save it as plain UTF-8")
    assert "\n" not in reason


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_written_through_a_link(
    write: Callable[[Path, bytes], None], exists: bool, tmp_path: Path
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    if exists:
        victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(OSError, match=r"link|exists"):
        write(path, b"new")
    assert victim.exists() is exists
    assert not exists or victim.read_text() == "precious"
    assert path.is_symlink()
    assert names(tmp_path) == (["file", "victim"] if exists else ["file"])


def test_a_temporary_file_has_a_name_that_nobody_knows(tmp_path: Path) -> None:
    seen: list[Path] = []

    def place(temporary: Path) -> None:
        assert temporary.name.startswith(".a.")
        assert temporary.read_bytes() == b"x"
        seen.append(temporary)

    for _ in range(2):
        disk.write_beside(tmp_path / "a", b"x", place)
    assert seen[0] != seen[1]
    assert names(tmp_path) == []


# What was just opened is then closed by a destructor, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("write", [disk.write_new_file, disk.replace_file])
def test_an_interruption_at_any_moment_leaves_no_half(
    write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    for moment in interrupted_everywhere(lambda: write(path, b"new")):
        assert names(tmp_path) in ([], ["file"]), moment
        path.unlink(missing_ok=True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["n" * 250, "中" * 80])
def test_a_long_name_can_be_written(name: str, tmp_path: Path) -> None:
    disk.replace_file(tmp_path / name, b"1")
    disk.replace_file(tmp_path / name, b"2")
    assert (tmp_path / name).read_bytes() == b"2"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    disk.replace_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (disk.replace_file, disk.write_new_file):
        with pytest.raises(OSError, match="No space left"):
            write(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    disk.write_new_file(tmp_path / "file", b"1")
    with pytest.raises(FileExistsError):
        disk.write_new_file(tmp_path / "file", b"2")
    assert (tmp_path / "file").read_bytes() == b"1"


@pytest.mark.skipif(os.name != "posix", reason="has no such permissions")
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0, 0o666)])
def test_a_file_has_the_permissions_that_the_user_gives_new_files(
    write: Callable[[Path, bytes], None], umask: int, mode: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pipes
def test_lines_are_added_to_files_only(tmp_path: Path) -> None:
    disk.append_line(tmp_path / "file", b"1\n")
    disk.append_line(tmp_path / "file", b"2\n")
    assert (tmp_path / "file").read_bytes() == b"1\n2\n"


@pipes
@pytest.mark.parametrize("write", WRITERS)
def test_nothing_takes_the_place_of_a_pipe_or_a_folder(
    write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=r"."):
            write(tmp_path / name, b"1\n")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["folder", "pipe"]


@pytest.mark.parametrize("rest", [b"", b"half", b"x" * 200_000])
def test_a_line_follows_the_last_whole_one(rest: bytes, tmp_path: Path) -> None:
    """A writer that was killed leaves half a line."""
    path = tmp_path / "file"
    path.write_bytes(b"1\n" * 50_000 + rest)
    disk.append_line(path, b"2\n")
    assert path.read_bytes() == b"1\n" * 50_000 + b"2\n"
    for before in (b"", b"\n"):
        path.write_bytes(before + rest)
        disk.append_line(path, b"2\n")
        assert path.read_bytes() == before + b"2\n"


APPENDS = """
import resource, sys
from pathlib import Path
from mnist_cnn import disk
from mnist_cnn.errors import reason_of
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    disk.append_line(Path(sys.argv[1]), b"x" * 150 + b"\\n")
except OSError as error:
    print(error.filename, disk.advice_for(error), sep="|", end="")
"""


@pytest.mark.skipif(os.name != "posix", reason="has no such limit")
@pytest.mark.parametrize("before", [None, b"", b"whole\n", b"whole\nhalf"])
def test_a_line_that_cannot_be_written_leaves_nothing(before: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    done = subprocess.run(
        [sys.executable, "-c", APPENDS, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    name, _, advice = done.stdout.partition("|")
    assert name == str(path)
    assert "ulimit -f" in advice
    if before is None:
        assert names(tmp_path) == []
    else:
        assert path.read_bytes() == before.removesuffix(b"half")


@pytest.mark.skipif(os.name != "posix", reason="has no locks")
def test_two_writers_of_lines_do_not_cut_each_others(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "file"
    path.write_bytes(b"1\nhalf")
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is writing it"):
            disk.append_line(path, b"2\n")
    assert path.read_bytes() == b"1\nhalf"


def test_a_link_out_of_a_folder_is_found(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    outside.write_text("x")
    (folder / "file").write_text("x")
    (folder / "inner").symlink_to(folder / "file")
    (folder / "outer").symlink_to(outside)
    (tmp_path / "alias").symlink_to(folder)
    assert [disk.leads_outside(folder / name, folder) for name in ("file", "inner", "outer")] == [
        False,
        False,
        True,
    ]
    assert not disk.leads_outside(tmp_path / "alias" / "file", tmp_path / "alias")


def test_a_new_file_is_whole_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    disk.write_new_file(tmp_path / "file", b"content")
    assert synced[0] == len(b"content")


@pytest.mark.parametrize("has_call", [True, False])
def test_without_hard_links_too_a_new_file_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_call: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if not has_call:
        monkeypatch.setattr(disk, "_rename_exclusively", lambda *_: False)
    disk.write_new_file(tmp_path / "file", b"new")
    with pytest.raises(FileExistsError):
        disk.write_new_file(tmp_path / "file", b"newer")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a rename replaces nothing")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EACCES])
def test_where_the_system_knows_no_exclusive_rename_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Refusing:
        """A C library whose system refuses the call."""

        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(number)
            return -1

        renamex_np = renameat2

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Refusing())
    if number == errno.EACCES:  # of the folder, not of the call
        with pytest.raises(PermissionError):
            disk.write_new_file(tmp_path / "file", b"new")
        assert names(tmp_path) == []
        return
    disk.write_new_file(tmp_path / "file", b"new")
    with pytest.raises(FileExistsError):
        disk.write_new_file(tmp_path / "file", b"newer")
    assert (tmp_path / "file").read_bytes() == b"new"


WRITES_FOR_EVER = """
import itertools, os, sys
from pathlib import Path
from mnist_cnn import disk
from mnist_cnn.errors import reason_of
from mnist_cnn.leftovers import sweep_files
def refuse(*_):
    raise PermissionError(1, "Operation not permitted")
os.link = refuse
for number in itertools.count():
    disk.write_new_file(Path(sys.argv[1]) / f"{number}.json", b"whole")
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="has no SIGKILL")
def test_a_killed_writer_leaves_whole_files_and_its_rest_is_swept(tmp_path: Path) -> None:
    """Without hard links the final name was made first, empty."""
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_FOR_EVER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(1 + 7 * number):
                process.stdout.readline()
            process.kill()
        assert {path.read_bytes() for path in folder.glob("*.json")} == {b"whole"}
        for path in folder.iterdir():
            os.utime(path, (1, 1))
        sweep_files(folder)
        assert all(name.endswith(".json") for name in names(folder))


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from mnist_cnn import disk
from mnist_cnn.errors import reason_of
from mnist_cnn.leftovers import sweep_files
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    disk.replace_file(Path(sys.argv[1]), bytes(100))
except OSError as error:
    print(error.filename, disk.advice_for(error), sep="|", end="")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    name, _, advice = done.stdout.partition("|")
    assert name == str(tmp_path / "file")
    assert "ulimit -f" in advice
    assert names(tmp_path) == []


def test_no_more_memory_is_taken_than_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"small")
    tracemalloc.start()
    assert disk.read_file(tmp_path / "a", 1 << 30) == b"small"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="files that do not tell their size")
def test_a_file_that_does_not_tell_its_size_is_read_whole() -> None:
    assert b"VmRSS" in disk.read_file(Path("/proc/self/status"), 1 << 20)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        disk.read_file(Path("/proc/self/status"), 10)
