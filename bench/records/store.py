"""The results folder: one file a run, written whole or not at all, read whatever lies there."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bench.records.schema import READABLE_VERSIONS, Environment, RunRecord
from bench.records.zip_archive import RefusedArchive, is_archive, read_members
from bench.text import printable
from mnist_cnn.errors import UsageError

RESULTS_DIR = Path("results")
"""Where records go, and are looked for, unless something else is said."""

_PROBE_BYTES = 256 * 1024
"""Room for the records of a benchmark, several times over."""
_LONGEST_NAME = 60
"""Characters of a device's or recipe's name that go into a folder's or file's."""
_NOT_A_NAME = re.compile(
    r"\((?:r|tm|c)\)|@.*|\b\d+-core\b|\b(?:cpu|gpu|processor|corporation)\b", re.IGNORECASE
)
"""What makers write into a device's name that nobody would guess."""
_NO_VERSION = "not a run record: it has no schema_version"


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """Something that was to be read and is not among the records."""

    path: Path
    reason: str
    """One line."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What was found: every file read is in exactly one of the two lists."""

    records: list[tuple[Path, RunRecord]] = field(default_factory=list)
    problems: list[UnreadableFile] = field(default_factory=list)


def save_record(record: RunRecord, results_dir: Path) -> Path:
    """Write a run's record; when this returns it is on disk, whole.

    Returns:
        ``<results_dir>/<machine>/<started_at>-<recipe>-<run_id>.json``

    Raises:
        OSError: it could not be written, or a record of that name is there already. Nothing
            of it is left behind, and what was there before is untouched.
    """
    final = record_path(record, results_dir)
    final.parent.mkdir(parents=True, exist_ok=True)
    # Not named *.json: a reader of the folder must not meet half a record.
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write(temporary, to_json(record).encode())
        _rename_to_new(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(final.parent)
    return final


def record_path(record: RunRecord, results_dir: Path) -> Path:
    """Where `save_record` puts it."""
    return results_dir / machine_name(record.environment) / file_name(record)


def to_json(record: RunRecord) -> str:
    """A record as its file holds it: every field, in the order they are declared, indented."""
    values = record.model_dump(mode="json")
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def machine_name(environment: Environment) -> str:
    """The folder of a machine's records, guessable from what it is: ``amd-epyc-2-cores``."""
    device = _slug(_NOT_A_NAME.sub(" ", environment.device_name))[:_LONGEST_NAME].strip("-")
    cores = environment.logical_cores
    return f"{device or 'unknown'}-{cores}-core{'' if cores == 1 else 's'}"


def check_writable(
    folder: Path,
    what: str = "the results folder",
    remedy: str = "choose another with --results-dir, or use --no-save",
) -> None:
    """Find out before training whether results can be kept there, by keeping something.

    Args:
        folder: where they will go; it is made where there is none.
        what: what to call it in a refusal.
        remedy: what to do instead.

    Raises:
        UsageError: they cannot.
    """
    probe = folder / f".probe-{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(probe, bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write to {what} {printable(str(folder))} ({_os_reason(error)}): {remedy}"
        ) from error


def read_records(paths: Iterable[Path]) -> ReadResult:
    """Read every record in these files, folders and zip files.

    Folders are searched to the bottom for ``*.json``; hidden files and folders, and folders that
    are links, are not looked into. So are zip files that are named, without writing anything; those
    in folders are not. Whatever is not a record is listed with the reason, and so is a second copy
    of a run.

    Raises:
        UsageError: one of the paths does not exist.
    """
    with gc_paused():
        return _read_all(paths)


def _read_all(paths: Iterable[Path]) -> ReadResult:
    result = ReadResult()
    benchmarks: dict[str, RunRecord] = {}
    known: dict[str, tuple[Path, RunRecord]] = {}
    seen: set[str] = set()
    for path in (file for named in paths for file in _record_files(named, result.problems)):
        identity = os.path.realpath(path)
        if identity in seen:  # the very same file, named twice
            continue
        seen.add(identity)
        for found, content in _read_contents(path):
            record = content if isinstance(content, UnreadableFile) else _parse(found, content)
            if isinstance(record, UnreadableFile):
                result.problems.append(record)
            elif record.run_id in known:
                result.problems.append(_copied_reason(found, record, *known[record.run_id]))
            else:
                record = _interned(record, benchmarks.setdefault(record.benchmark_id, record))
                known[record.run_id] = (found, record)
                result.records.append((found, record))
    return result


def _interned(record: RunRecord, other: RunRecord) -> RunRecord:
    """The same record, which holds what is equal in both only once: thousands fit in memory."""
    same = {
        name: theirs
        for name in ("protocol", "recipe", "setup", "clock", "dataset", "environment")
        if getattr(record, name) == (theirs := getattr(other, name))
    }
    return record.model_copy(update=same)


def file_name(record: RunRecord) -> str:
    """What a record's file is called: when it started, what it trained, which run it is."""
    recipe = _slug(str(record.recipe.get("name") or ""))[:_LONGEST_NAME] or "unnamed"
    return f"{record.started_utc:%Y%m%dT%H%M%SZ}-{recipe}-{_slug(record.run_id)[:8]}.json"


def _slug(text: str) -> str:
    """Lower-case ASCII letters and digits, joined by single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _write(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename_to_new(source: Path, destination: Path) -> None:
    """Rename, but never over an existing file: `os.rename` would replace it on POSIX."""
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, some network folders): take the name first, then fill it.
        destination.open("xb").close()
        try:
            source.replace(destination)
        except OSError:
            destination.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Make a new name outlive a power cut, where folders can be synced at all."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _record_files(path: Path, problems: list[UnreadableFile]) -> Iterator[Path]:
    """The files a path names, in an order that does not depend on the disk."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        why = _os_reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {printable(str(path))}: {why}") from error
    if not is_folder:
        yield path
        return

    def unreadable(error: OSError) -> None:
        problems.append(UnreadableFile(Path(error.filename or path), _os_reason(error)))

    for folder, folders, names in os.walk(path, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".json") and not name.startswith("."):
                yield Path(folder, name)


def _read_contents(path: Path) -> Iterator[tuple[Path, bytes | UnreadableFile]]:
    """What a file holds; of a zip file, what each file in it that is to be read does."""
    try:
        if not path.is_file():  # a pipe would be waited for; a dangling link has nothing in it
            yield path, UnreadableFile(path, "not a regular file")
            return
        content = None if is_archive(path) else path.read_bytes()
    except OSError as error:
        yield path, UnreadableFile(path, _os_reason(error))
        return
    if content is not None:
        yield path, content
        return
    for member, inside in read_members(path):
        yield (
            member,
            UnreadableFile(member, inside.reason) if isinstance(inside, RefusedArchive) else inside,
        )


def _parse(path: Path, content: bytes) -> RunRecord | UnreadableFile:
    try:
        record = RunRecord.model_validate_json(content)
    except ValidationError as error:
        return UnreadableFile(path, _invalid_reason(content, error))
    if "schema_version" not in record.model_fields_set:
        return UnreadableFile(path, _NO_VERSION)
    return record


def _invalid_reason(content: bytes, error: ValidationError) -> str:
    """What is wrong with a file that is not a record, in one line."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return printable(error.errors()[0]["msg"])
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version is None:
        return _NO_VERSION
    if version not in READABLE_VERSIONS:
        return (
            f"its schema_version is {printable(str(version))[:20]}; this mnist-bench reads "
            f"{READABLE_VERSIONS[0]} to {READABLE_VERSIONS[-1]}: use the version that wrote it, "
            "or a newer one"
        )
    first, *others = error.errors(include_url=False, include_input=False)
    where = ".".join(str(part) for part in first["loc"]) or "as a whole"
    more = f" (and {len(others)} more)" if others else ""
    return printable(f"not a run record: {where}: {first['msg']}{more}")


def _copied_reason(
    path: Path, record: RunRecord, first_path: Path, first: RunRecord
) -> UnreadableFile:
    where = printable(str(first_path))
    if record == first:
        return UnreadableFile(path, f"the same run as {where}: counted once")
    return UnreadableFile(path, f"claims to be the run of {where} but differs from it: not counted")


def _os_reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


@contextmanager
def gc_paused() -> Iterator[None]:
    """Within, what is no longer referred to still goes; cycles wait until afterwards."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


PAGE_NAME = "README.md"


CHART_NAME = "times.svg"


REPORT_NAME = "index.html"
