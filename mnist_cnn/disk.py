"""The one door to files: others' are read within limits, own ones are written whole or not at all.

A name may lead to a pipe that blocks, to a device that never ends, or by a link to another file. So
only regular files are read, no more than a limit of bytes, and nothing is written through a link.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TypeVar

from mnist_cnn.errors import reason_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_Result = TypeVar("_Result")
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_KEPT_LETTERS = 48
"""Letters of a file's name in that of its temporary file: at 4 bytes each, it is not too long."""
_CHUNK_BYTES = 1 << 16
_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCL = -100, 1, 4
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "your quota there is used up: remove files of yours",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.EACCES: "give yourself the right to write there",
    errno.EPERM: "give yourself the right to write there",
    errno.ENOTDIR: "a file has the name that a folder needs: rename it",
    errno.EEXIST: "a file has the name that is needed: rename it",
    errno.EISDIR: "a folder has the name that is needed: rename it",
    errno.EAGAIN: "try again when it is done",
    errno.EINVAL: "name a file that may be written or replaced",
    errno.ENOENT: "make the folder",
    errno.ENAMETOOLONG: "the path is too long: use a shorter one",
    errno.EFBIG: "files of this process may not be as large: raise the limit (ulimit -f)",
    errno.EMFILE: "this process has too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many open files: end other programs",
    errno.EIO: "the disk reports an error: see the system's log",
    errno.ELOOP: "a link is in the way: remove it",
    errno.ETIMEDOUT: "see whether its disk or server answers",
    errno.ESTALE: "the network folder is gone: mount it again",
}
"""What to do when a file cannot be written, by the reason."""
_OTHER_ENCODINGS = (
    (codecs.BOM_UTF8, "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""First bytes of text in encodings that are not read, with the names of these."""


def open_regular_file(path: Path) -> BufferedReader:
    """Open a file to read, and nothing else than a file: a pipe would block, a device never ends.

    Raises:
        OSError: it cannot be opened, or it is no regular file.
    """
    try:
        # Without waiting: a pipe is refused even where nobody writes to it.
        descriptor = os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY)
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")  # noqa: PTH123
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_file(path: Path, most_bytes: int) -> bytes:
    """Read a whole file.

    Raises:
        OSError: it cannot be read, is no regular file or is larger than `most_bytes`.
    """
    with open_regular_file(path) as file:
        # The size first: a file full of holes is large at no cost. And no more is asked for than
        # that size, because Python allocates what is asked for.
        size = os.fstat(file.fileno()).st_size
        if size <= most_bytes:
            content = file.read(size + 1)
            if len(content) > size:  # it grows, or the system does not tell its size
                content += file.read(most_bytes + 1 - len(content))
            if len(content) <= most_bytes:
                return content
    raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes", str(path))


def decode(content: bytes) -> str:
    """The text of a file, which must be UTF-8.

    Raises:
        ValueError: it is in another encoding; the message says in which, and what to do.
    """
    for mark, name in _OTHER_ENCODINGS:
        if content.startswith(mark):
            raise ValueError(f"it is {name}: save it as plain UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start:,} is not UTF-8: save it as plain UTF-8") from None


def read_text(path: Path, most_bytes: int) -> str:
    """Read a whole file of text.

    Raises:
        OSError: it cannot be read, is no regular file or is larger than `most_bytes`.
        ValueError: it is not UTF-8.
    """
    return decode(read_file(path, most_bytes))


def leads_outside(path: Path, folder: Path) -> bool:
    """Whether a file in or below a folder is a link to a file outside of it."""
    if not path.is_symlink():
        return False
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file that does not exist; when this returns it is on the disk, whole.

    Raises:
        OSError: it cannot be written, or a file or link of that name exists. Nothing of it remains,
            and what existed before is unchanged.
    """
    write_beside(path, content, lambda temporary: rename_to_new(temporary, path))
    sync_folder(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file or replace it; when this returns it is on the disk, whole.

    Raises:
        OSError: it cannot be written, or what has its name is no regular file. What existed before
            is unchanged.
    """
    check_replaceable(path)
    write_beside(path, content, lambda temporary: temporary.replace(path))
    sync_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Add a line at the end of a file, or make it; when this returns the line is on the disk.

    What follows the last line break is cut off: its writer was killed. A reader finds such a rest.

    Args:
        path: the file.
        line: ends with its only line break.

    Raises:
        OSError: it cannot be written, or what has its name is no regular file. The lines that
            existed before are unchanged, and nothing of the new one remains.
    """
    check_replaceable(path)
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            write_new_file(path, line)
            return
    flags = os.O_RDWR | os.O_APPEND | _NO_FOLLOW | _NO_WAIT | _BINARY
    try:
        with open(os.open(path, flags), "r+b", buffering=0) as file:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            _lock_and_append(file, line)
    except OSError as error:  # a write that fails names no file
        raise _about(path, error) from error


def _lock_and_append(file: FileIO, line: bytes) -> None:
    """Add a line to an open file, or leave its whole lines as they were."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(error.errno, "another process is writing it") from None
        except OSError:  # not every file system has locks
            pass
    end = _end_of_lines(file)
    try:
        file.truncate(end)
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def _end_of_lines(file: FileIO) -> int:
    """The bytes of a file up to and with its last line break."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _CHUNK_BYTES)
        file.seek(start)
        if (found := file.read(position - start).rfind(b"\n")) >= 0:
            return start + found + 1
        position = start
    return 0


def check_replaceable(path: Path) -> None:
    """Refuse to write where a link leads, and to put a file in the place of a pipe or a device.

    Raises:
        OSError: it is a link, a folder, a pipe or a device.
    """
    refuse_link(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def refuse_link(path: Path) -> None:
    """Refuse to write where a link leads.

    Raises:
        OSError: it is a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link: remove it, or name the file itself", str(path))


def temporary_ending() -> str:
    """The end of the name of a temporary file of this process: its number, and a random one."""
    return f".{os.getpid() % 2**32:08x}{secrets.token_hex(4)}.tmp"


def write_beside(
    path: Path, content: bytes | bytearray | memoryview, place: Callable[[Path], _Result]
) -> _Result:
    """Write bytes to the disk, beside a path, under a name that nobody can know before.

    The file is locked until it is placed: `mnist_cnn.leftovers` removes those whose writer was
    killed.

    Args:
        path: what the file will be.
        content: its bytes.
        place: renames the file; what it leaves is removed.

    Returns:
        What `place` returns.

    Raises:
        OSError: it cannot be written; its `filename` is `path`. Or what `place` raises.
    """
    # Hidden, and with another suffix: a reader of the folder must not meet half a file.
    temporary = path.with_name(f".{path.name[:_KEPT_LETTERS]}{temporary_ending()}")

    def write_and_place() -> _Result:
        try:
            lock = _write_locked(temporary, content)
        except OSError as error:  # a write that fails names no file
            raise _about(path, error) from error
        try:
            return place(temporary)
        finally:
            if lock >= 0:
                os.close(lock)

    return with_cleanup(write_and_place, lambda: temporary.unlink(missing_ok=True))


def with_cleanup(action: Callable[[], _Result], cleanup: Callable[[], object]) -> _Result:
    """Call `action`, then `cleanup`: after any error, and wherever a signal raises.

    No context manager can do that: a signal may come between its `yield` and the body of `with`.

    Args:
        action: what may fail.
        cleanup: begun again if a signal interrupts it.

    Returns:
        What `action` returns.
    """
    try:
        result = action()
    finally:
        try:
            cleanup()
        except KeyboardInterrupt:
            cleanup()
            raise
    return result


def _write_locked(path: Path, content: bytes | bytearray | memoryview) -> int:
    """Write a new file to the disk; returns the descriptor that locks it, -1 without locks."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
    with open(os.open(path, flags, 0o666), "wb") as file:  # noqa: PTH123
        lock = _locked_copy(file.fileno())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return lock


def _locked_copy(descriptor: int) -> int:
    """Lock a file; returns another descriptor of it, which keeps the lock, or -1 without locks."""
    if fcntl is None:
        return -1
    copy = os.dup(descriptor)
    with contextlib.suppress(OSError):  # not every file system has locks
        fcntl.flock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return copy


def _about(path: Path, error: OSError) -> OSError:
    """The same error, about the file that the caller knows."""
    return type(error)(error.errno, reason_of(error), str(path))


def rename_to_new(source: Path, destination: Path) -> None:
    """Rename, but never over an existing file: `os.rename` would replace it on POSIX.

    The new name is that of the whole file from the first moment, also where there are no hard links
    (FAT, some network folders).

    Raises:
        OSError: a file of that name exists, or the system refuses.
    """
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        if not _rename_exclusively(source, destination):
            # The system has no such call. Another process could take the name in between; those of
            # records are random.
            if os.path.lexists(destination):
                raise FileExistsError(
                    errno.EEXIST, os.strerror(errno.EEXIST), str(destination)
                ) from None
            source.rename(destination)


def _rename_exclusively(source: Path, destination: Path) -> bool:
    """Rename in one step unless the new name exists; False where the system cannot do that.

    Source: renameat2(2) of Linux, renamex_np(2) of macOS.

    Raises:
        OSError: a file of that name exists, or the system refuses.
    """
    if os.name != "posix":
        source.rename(destination)  # there a rename never replaces
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(source), os.fsencode(destination)
    try:
        if sys.platform == "darwin":
            failed = libc.renamex_np(*names, ctypes.c_uint(_RENAME_EXCL))
        else:
            folder = ctypes.c_int(_AT_FDCWD)
            failed = libc.renameat2(
                folder, names[0], folder, names[1], ctypes.c_uint(_RENAME_NOREPLACE)
            )
    except AttributeError:  # an older C library
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(destination))


def sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut, where folders can be synced at all."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def probe_name(name: str) -> str:
    """A name as long as `name`, for a file that is written to see whether it can be.

    Named like a temporary file, which is swept if the process is killed before it is removed.
    """
    ending = temporary_ending()
    return ".probe".ljust(len(os.fsencode(name)) - len(ending), "-") + ending


def advice_for(error: OSError) -> str:
    """What to do about a file that cannot be written, in one sentence without a full stop."""
    return _ADVICE.get(error.errno or 0, "see whether the folder can be written to")


def refusal_of(error: OSError) -> str:
    """``No space left on device; free some space there``, for a file that cannot be written."""
    return f"{reason_of(error)}; {advice_for(error)}"


def home_folder() -> Path | None:
    """The user's home; None where there is none: no HOME, and nothing in the list of users."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() and os.environ.get("HOME") != "" else None
