from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from bench.records import store
from bench.records.schema import RunRecord
from mnist_cnn.errors import UsageError
from tests.factories import make_benchmark, make_record, records
from tests.interruptions import interrupted_everywhere

ROOT = Path(__file__).resolve().parents[2]


# --- Saving


@pytest.mark.slow
@given(record=records())
def test_what_is_saved_is_read_again(
    record: RunRecord, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("results")
    path = store.save_record(record, folder)
    found = store.read_records([folder])
    assert found.records == [(path, record)]
    assert found.problems == []


def test_a_path_can_be_guessed(tmp_path: Path) -> None:
    started = datetime(2025, 11, 3, 23, 30, 5, 999, tzinfo=timezone(timedelta(hours=-5)))
    record = make_record(run_id="0123456789abcdef", started_at=started)
    path = store.save_record(record, tmp_path / "new" / "results")
    expected = "new/results/amd-epyc-2-cores/20251104T043005Z-fast-01234567.json"
    assert path == tmp_path / expected


@pytest.mark.parametrize(
    ("device", "cores", "name"),
    [
        ("AMD EPYC", 2, "amd-epyc-2-cores"),
        ("AMD EPYC 7763 64-Core Processor", 4, "amd-epyc-7763-4-cores"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", 1, "intel-xeon-1-core"),
        ("NVIDIA H200", 16, "nvidia-h200-16-cores"),
        ("NVIDIA GeForce RTX 4090", 32, "nvidia-geforce-rtx-4090-32-cores"),
        ("Apple M2 Pro", 10, "apple-m2-pro-10-cores"),
        ("../../etc/passwd", 2, "etc-passwd-2-cores"),
        ("", 2, "unknown-2-cores"),
        ("x" * 300, 2, "x" * 60 + "-2-cores"),
    ],
)
def test_a_machines_folder_can_be_guessed(device: str, cores: int, name: str) -> None:
    record = make_record(environment={"device_name": device, "logical_cores": cores})
    assert store.machine_name(record.environment) == name


def test_a_file_with_the_name_of_the_machines_folder_is_named(tmp_path: Path) -> None:
    record = make_record()
    folder = store.record_path(record, tmp_path).parent
    folder.write_text("a file")
    with pytest.raises(FileExistsError) as refusal:
        store.save_record(record, tmp_path)
    assert refusal.value.filename == str(folder)


def test_a_file_is_the_same_each_time_and_fit_for_diffs(tmp_path: Path) -> None:
    record = make_record(label="größer")
    content = store.save_record(record, tmp_path).read_bytes()
    assert content == store.to_json(record).encode()
    assert content.endswith(b"}\n")
    assert content.startswith(b'{\n  "schema_version": 13,\n  "run_id": ')
    assert "größer".encode() in content
    assert list(json.loads(content)) == list(RunRecord.model_fields)


def test_nothing_but_the_record_is_left_and_others_may_read_it(tmp_path: Path) -> None:
    path = store.save_record(make_record(), tmp_path)
    assert list(path.parent.iterdir()) == [path]
    if os.name == "posix":
        umask = os.umask(0)
        os.umask(umask)
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("hard_links", [True, False])
def test_an_existing_record_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_hard_links)
    record = make_record()
    path = store.save_record(record, tmp_path)
    assert store.read_records([path]).records == [(path, record)]
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        store.save_record(record, tmp_path)
    assert path.read_text() == "mine"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
@pytest.mark.parametrize("target", ["save", "check_writable"])
def test_when_the_disk_takes_no_more_nothing_partial_is_left(tmp_path: Path, target: str) -> None:
    # A limit on file sizes fails a write half-way, as a full disk does.
    script = f"""
import resource
from pathlib import Path
from bench.records import store
from mnist_cnn.errors import UsageError
from tests.factories import make_record
record = make_record()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    if {target!r} == "save":
        store.save_record(record, Path({str(tmp_path)!r}))
    else:
        store.check_writable(Path({str(tmp_path)!r}))
except (OSError, UsageError) as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("OSError" if target == "save" else "UsageError")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    store.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    store.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


# What was just opened is then closed by a destructor, which warns.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_check_writable_leaves_no_file_wherever_it_is_interrupted(tmp_path: Path) -> None:
    for moment in interrupted_everywhere(lambda: store.check_writable(tmp_path / "a")):
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], moment


@pytest.mark.skipif(os.name != "posix", reason="has no such limit")
@pytest.mark.parametrize("length", [30, 38, 90])
def test_check_writable_writes_a_name_as_long_as_the_records(tmp_path: Path, length: int) -> None:
    # The path of the temporary file may be longer than that of a record.
    longest = os.pathconf(tmp_path, "PC_PATH_MAX") - 1 - max(length, len("..tmp") + 17 + 48)
    folder = tmp_path
    while len(str(folder)) + 201 + 2 < longest:
        folder /= "d" * 200
    folder /= "d" * (longest - len(str(folder)) - 2)
    store.check_writable(folder, name="n" * length)
    with pytest.raises(UsageError, match=r"File name too long.*: the path is too long: use a sh"):
        store.check_writable(folder, name="n" * 120)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_check_writable_gives_up_where_a_folder_can_never_be_made() -> None:
    with pytest.raises(UsageError, match=r"cannot write to .*/proc/none"):
        store.check_writable(Path("/proc/none"))


def test_check_writable_makes_no_list_of_very_many_folders() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="the path is too long: use a shorter one"):
            store.check_writable(Path("u/" * 10_000))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_check_writable_names_the_cause_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "machine").touch()
    with pytest.raises(UsageError, match=r"\(.*\): a file has the name.*: rename it, or choose an"):
        store.check_writable(tmp_path / "machine")
    with pytest.raises(UsageError, match=r"No space left on device.*free some space there, or cho"):
        store.check_writable(tmp_path, files=2**50)
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="room is not known here")
@pytest.mark.parametrize(
    ("free_bytes", "entries", "free_entries", "has_room"),
    [
        (1 << 30, 1000, 1000, True),
        (384 << 10, 1000, 9, True),  # ten records of 64 KiB, with the probe's own 256 KiB
        (380 << 10, 1000, 1000, False),
        (1 << 30, 1000, 8, False),  # the probe's own entry is free again
        (1 << 30, 0, 0, True),  # a file system that counts no entries
    ],
)
def test_check_writable_wants_room_for_every_record(
    free_bytes: int,
    entries: int,
    free_entries: int,
    has_room: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = free_bytes // 4096
    status = (4096, 4096, blocks, blocks, blocks, entries, free_entries, free_entries, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(status))
    if has_room:
        store.check_writable(tmp_path, files=10)
    else:
        with pytest.raises(UsageError, match="No space left on device"):
            store.check_writable(tmp_path, files=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_that_check_and_save_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    """Each check removes the folders that it made, perhaps those that another is about to use."""
    script = f"""
from pathlib import Path
from bench.records import store
from tests.factories import make_record
for number in range(20):
    store.check_writable(Path({str(tmp_path / "results" / "machine")!r}))
store.save_record(make_record(), Path({str(tmp_path / "results")!r}))
"""
    processes = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(store.read_records([tmp_path]).records) == 2


def test_what_a_killed_writer_left_is_removed_at_the_next_save(tmp_path: Path) -> None:
    record = make_record()
    folder = store.record_path(record, tmp_path).parent
    folder.mkdir()
    left, mine = folder / f".20260101T000000Z-fast.json.{'0a' * 8}.tmp", folder / ".notes.tmp"
    for path in (left, mine):
        path.write_text("half a rec")
        os.utime(path, (1, 1))
    path = store.save_record(record, tmp_path)
    assert sorted(folder.iterdir()) == sorted([path, mine])


def test_a_folder_that_cannot_be_written_to_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write to the results folder .*--results-dir"):
        store.check_writable(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot write"):
        store.check_writable(tmp_path / "file" / "below")


# --- Reading


def test_files_and_folders_at_any_depth_are_read_in_order(tmp_path: Path) -> None:
    paths = [_put(make_record(), tmp_path / name) for name in ("c.json", "b/x/1.json", "a.json")]
    _put(make_record(), tmp_path / "notes.txt")
    _put(make_record(), tmp_path / ".hidden" / "h.json")
    _put(make_record(), tmp_path / ".half.json.1.tmp")
    found = store.read_records([tmp_path])
    assert [path for path, _ in found.records] == [paths[2], paths[0], paths[1]]
    assert found.problems == []


def test_a_file_may_be_named_whatever_it_is_called(tmp_path: Path) -> None:
    path = _put(make_record(), tmp_path / "record.txt")
    assert [path for path, _ in store.read_records([path]).records] == [path]


def test_a_path_that_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere: No such file"):
        store.read_records([tmp_path / "nowhere"])


HUGE = {"epoch": 1, "samples": 1, "correct": 10**400, "loss": None, "samples_seen": 1}


def _json(**changes: Any) -> str:
    return json.dumps(json.loads(store.to_json(make_record())) | changes)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Invalid JSON: "),
        (b"{", "Invalid JSON: "),
        (b"\xff\xfe\x00", "Invalid JSON: "),
        (b"[" * 100_000, "Invalid JSON: "),
        (b"[]", "not a run record: it has no schema_version"),
        (b"null", "not a run record: it has no schema_version"),
        (b'{"name": "something else"}', "not a run record: it has no schema_version"),
        (b'{"schema_version": 14}', "its schema_version is 14; this mnist-bench reads 1 to 13"),
        (b'{"schema_version": "\\u001b[31m"}', "its schema_version is ; this"),
        (b'{"schema_version": 1}', "not a run record: run_id: Field required (and "),
        (_json(samples_seen=1).encode(), "samples_seen is not the sum of the epochs'"),
        (_json(**{"\x1b[2J": 1}).encode(), "not a run record: : Extra inputs"),
        (_json(final_accuracy=float("nan")).encode(), "final_accuracy: Input should be a finite"),
        (
            _json(evaluations=[HUGE]).encode(),
            "evaluations.0.correct: Input should be less than or equal to",
        ),
    ],
    # The contents have random ids, and the workers of pytest-xdist must name the tests alike.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_record_is_listed_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    good = _put(make_record(), tmp_path / "good.json")
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    found = store.read_records([tmp_path])
    assert [path for path, _ in found.records] == [good]
    [problem] = found.problems
    assert problem.path == bad
    assert reason in problem.reason
    assert problem.reason.isprintable()


def test_a_record_without_a_schema_version_is_not_taken_for_one(tmp_path: Path) -> None:
    values = json.loads(_json())
    del values["schema_version"]
    (tmp_path / "x.json").write_text(json.dumps(values))
    [problem] = store.read_records([tmp_path]).problems
    assert problem.reason == "not a run record: it has no schema_version"


def test_a_copy_of_a_run_is_counted_once_and_said_so(tmp_path: Path) -> None:
    record = make_record()
    first = _put(record, tmp_path / "a" / "1.json")
    second = _put(record, tmp_path / "b" / "1.json")
    found = store.read_records([tmp_path])
    assert found.records == [(first, record)]
    assert found.problems == [
        store.UnreadableFile(second, f"the same run as {first}: counted once")
    ]


def test_runs_of_a_benchmark_keep_what_they_differ_in(tmp_path: Path) -> None:
    """What they have in common is in memory once."""
    first, other = make_benchmark((6.4, 6.5))
    dirty = other.environment.model_copy(update={"dirty": not first.environment.dirty})
    other = other.model_copy(update={"environment": dirty})
    for record in (first, other):
        store.save_record(record, tmp_path)
    one, two = (record for _, record in store.read_records([tmp_path]).records)
    assert [one, two] == [first, other]
    assert one.setup is two.setup
    assert one.environment is not two.environment


def test_an_altered_copy_of_a_run_is_not_counted(tmp_path: Path) -> None:
    record = make_record()
    first = _put(record, tmp_path / "a.json")
    second = _put(record.model_copy(update={"seed": 7}), tmp_path / "b.json")
    found = store.read_records([tmp_path])
    assert found.records == [(first, record)]
    assert found.problems == [
        store.UnreadableFile(
            second, f"claims to be the run of {first} but differs from it: not counted"
        )
    ]


def test_the_same_file_named_twice_is_no_problem(tmp_path: Path) -> None:
    path = _put(make_record(), tmp_path / "a.json")
    found = store.read_records([tmp_path, path, tmp_path])
    assert len(found.records) == 1
    assert found.problems == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_dangling_links_are_listed_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    found = store.read_records([tmp_path])
    assert [(p.path.name, p.reason) for p in found.problems] == [
        ("link.json", "not a regular file"),
        ("pipe.json", "not a regular file"),
    ]


def test_a_folder_that_cannot_be_listed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(make_record(), tmp_path / "a.json")
    closed = tmp_path / "closed"
    closed.mkdir()
    scan = os.scandir

    # By a stand-in: permissions stop nobody who runs the tests as root.
    def scandir(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = store.read_records([tmp_path])
    assert len(found.records) == 1
    assert found.problems == [store.UnreadableFile(closed, "Permission denied")]


def test_times_without_a_zone_are_utc(tmp_path: Path) -> None:
    naive = datetime(2025, 11, 3, 9, 30)
    aware = naive.replace(tzinfo=UTC)
    first = store.save_record(make_record(started_at=naive), tmp_path)
    second = store.save_record(make_record(started_at=aware), tmp_path)
    assert first.name.split("-")[0] == second.name.split("-")[0] == "20251103T093000Z"


def _put(record: RunRecord, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(store.to_json(record), encoding="utf-8")
    return path


def _no_hard_links(*arguments: object, **options: object) -> None:
    raise PermissionError(1, "Operation not permitted")
