"""The readers of `bench`: what they read, and the use that commands make of it.

What was read must equal itself after it was written and read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_svg
import matplotlib.font_manager  # noqa: F401

# Commands import these late; an import that may not write or lacks memory would be half done.
from bench.analysis.columns import run_column_names
from bench.analysis.cost import parse_price
from bench.analysis.filters import parse_filter
from bench.analysis.rows import run_row
from bench.analysis.table import parse_columns
from bench.cli import main
from bench.cli.options import parse_duration, parse_points, parse_run_count, parse_share
from bench.launch.hosts import parse_host_place
from bench.launch.matrix import Matrix, parse_shard, read_matrix, with_overrides
from bench.machine import cores, energy, processor, repository
from bench.machine.environment import nvidia_driver
from bench.machine.gpu_identity import apple_gpu_cores
from bench.machine.package import package_version
from bench.machine.system import NotReported, read_field
from bench.measure.journal import JournalFolder
from bench.measure.rank_ends import reported_ends
from bench.measure.request import OutputRequest
from bench.measure.run_log import FileRunLog, read_run_log
from bench.measure.run_state import BenchmarkState, RunState
from bench.records import store
from bench.records.benchmark_plan import plan_name, read_plan, write_plan
from bench.records.record_file import UnreadableFile, file_name, machine_name, parse_record, to_json
from bench.records.sidecars import (
    NoiseFloor,
    PeakFlops,
    find_machine_noise,
    find_peak_flops,
    read_noise_floors,
    read_peak_flops,
    write_sidecar,
)
from bench.records.sweep_plan import (
    SweepPlanEntry,
    append_sweep_plan,
    missing_runs,
    read_sweep_plan,
)
from bench.verify.figure_requests import parse_request
from bench.verify.page_tags import read_tags
from bench.verify.pages import check_pages
from bench.verify.privacy import find_leaks
from mnist_cnn.accuracy import parse_accuracy
from mnist_cnn.errors import UsageError
from mnist_cnn.folder_lock import Holder
from tests.commands import ROOT
from tests.factories import ENERGY, MONITORING, ZEN_5, make_benchmark, make_plan, make_record
from tests.fuzz.promises import expect, expect_line, written

# Records and what lies beside them


@cache
def records() -> list[bytes]:
    """Records as today's version and earlier ones write them."""
    environment = {"processor": ZEN_5}
    made = make_record(
        run_id="a" * 32, energy=ENERGY, monitoring=MONITORING, environment=environment
    )
    published = sorted((ROOT / "results").glob("*-cores*/2*.json"))[::20]
    return [to_json(made).encode(), *(path.read_bytes() for path in published)]


def new_records() -> list[bytes]:
    """A record of a benchmark that others are compared with."""
    record = make_record(run_id="a" * 32, label="new", energy=ENERGY, monitoring=MONITORING)
    return [to_json(record).encode()]


def read_record(_: Path, content: bytes) -> None:
    """Parse a record, name its file, write it again, and make its row."""
    record = parse_record(Path("x.json"), content)
    if isinstance(record, UnreadableFile):
        return expect_line(record.reason)
    again = parse_record(Path("x.json"), to_json(record).encode())
    expect(again == record, "the record is another after it was written")
    for name in (file_name(record), machine_name(record.environment)):
        expect("/" not in name and not name.startswith("."), f"it would be written as {name!r}")
        expect(len(name) < 250, "the file's name is too long")
    run_row((Path("x.json"), record))
    return None


def _floor(**values: Any) -> NoiseFloor:
    fixed = {"case": "cpu", "device_name": "AMD EPYC", "commit": "a", "torch": "2", "rounds": 4}
    more = {"started_at": "2025-11-03T09:20:00Z", "seconds_per_image": 1e-4, "source_sha256": "b"}
    at = {"measured_at": "2025-11-03T09:30:00Z", "relative": 0.03}
    return NoiseFloor.model_validate({**fixed, **at, **more, **values})


def _peak(**values: Any) -> PeakFlops:
    fixed = {"device": "cpu", "device_name": "AMD EPYC", "precision": "bf16", "threads": 2}
    more = {"flops_per_second": 1e11, "side": 2048, "commit": "a", "torch": "2"}
    return PeakFlops.model_validate(
        {**fixed, **more, "measured_at": "2025-11-03T09:30:00Z", **values}
    )


def floors() -> list[bytes]:
    """A noise floor."""
    return [_floor().model_dump_json().encode()]


def peaks() -> list[bytes]:
    """A peak."""
    return [_peak().model_dump_json().encode()]


def read_floor(folder: Path, content: bytes) -> None:
    """Read a noise floor beside two sound ones, as the gate does, and write it again."""
    written(folder, "x.noise", content)
    for minute in (10, 59):
        other = _floor(measured_at=f"2025-11-04T09:{minute}:00Z").model_dump_json()
        written(folder, f"{minute}.noise", other.encode())
    all_floors = read_noise_floors([folder], skip_broken=True)
    for floor in all_floors:
        expect_line(str(find_machine_noise(floor.case, floor.device_name, all_floors)))
        write_sidecar(floor, folder / "again")
    again = read_noise_floors([folder / "again"])
    expect({*map(repr, again)} == {*map(repr, all_floors)}, "a floor is another when written")


def read_peak(folder: Path, content: bytes) -> None:
    """Read a peak beside a sound one, and look for that of a run."""
    written(folder, "x.peak", content)
    written(folder, "y.peak", _peak().model_dump_json().encode())
    sound, broken = read_peak_flops([folder])
    expect(len(sound) + len(broken) == 2, "a file is in neither list")
    find_peak_flops(_sound_record(), sound)
    for peak in sound:
        write_sidecar(peak, folder / "again")
    again, _ = read_peak_flops([folder / "again"])
    expect({*map(repr, again)} == {*map(repr, sound)}, "a peak is another after it was written")


@cache
def _sound_record() -> Any:
    return make_record()


def plans() -> list[bytes]:
    """A plan."""
    plan = make_plan(commit=make_record().environment.commit, dirty=False)
    return [plan.model_dump_json().encode()]


def read_a_plan(folder: Path, content: bytes) -> None:
    """Read a plan, and write it again."""
    plan = read_plan(written(folder, "x.plan", content))
    expect("/" not in plan_name(plan), "it would be written elsewhere")
    path = write_plan(plan, folder / "again")
    with contextlib.suppress(OSError):  # indented, it may be too large to be a plan
        expect(read_plan(path) == plan, "not what was written")


def read_a_sweep_plan(folder: Path, content: bytes) -> None:
    """Read a sweep's file, and look for its missing runs."""
    path = written(folder, "s.sweep", content)
    entries = read_sweep_plan(path)
    list(missing_runs(path, entries, [_sound_record()]))
    for entry in entries:
        append_sweep_plan(entry, "s", "", folder / "again")
    expect(read_sweep_plan(folder / "again" / "s.sweep") == entries, "not what was written")


def sweep_plans() -> list[bytes]:
    """A sweep's file of one line, and of two."""
    entry = SweepPlanEntry.model_validate(
        {
            "started_at": "2025-11-03T09:30:00Z",
            "order_seed": 1,
            "shard": "1/2",
            "runs": [["--seed", "0"], ["--threads", "2"]],
        }
    )
    return [entry.model_dump_json().encode()]


def read_zip(folder: Path, content: bytes) -> None:
    """Read the records in a zip file."""
    archive = written(folder, "x.zip", content)
    result = store.read_records([archive])
    for path, _ in result.records:
        expect(path.is_relative_to(archive) and ".." not in path.parts, f"it leads to {path}")
    for problem in result.problems:
        expect_line(problem.reason)
    expect([path.name for path in folder.iterdir()] == ["x.zip"], "something was unpacked")


# Commands on a folder that holds such a file

_TO_REPORT = ("csv", "json", "markdown", "pytest-benchmark", "bmf", "github-action-smaller", "html")
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("report",),
    *(("report", "--to", name) for name in _TO_REPORT),
    *(("report", "--per", "run", "--to", name) for name in ("csv", "json", "terminal")),
    ("report", "--clocks"),
    ("report", "--scaling"),
    ("report", "--baseline", "base"),
    ("report", "--per", "run", "--sort", "time_to_target_seconds", "--group-by", "label"),
    ("report", "--to", "github-action-bigger"),
    ("verify",),
    ("verify", "--json"),
    ("compare",),
    ("compare", "--json", "--fail-if-slower", "5%", "--fail-if-less-accurate", "0.1"),
    ("publish", "--check"),
)


def run_a_command(name: str, folder: Path, content: bytes) -> None:
    """Run a command, which the content chooses, on a folder that has it as one of its files."""
    machine = folder / "results" / "amd-epyc-2-cores"
    machine.mkdir(parents=True)
    for path, text in _sound_files():
        written(machine, path, text)
    written(machine, name, content)
    command, *options = _COMMANDS[zlib.crc32(content) % len(_COMMANDS)]
    results = ["--results-dir", str(folder / "results")]
    sides = {"compare": ["base", "new", *results], "publish": results}
    run_command([command, *sides.get(command, [str(machine)]), *options])


@cache
def _sound_files() -> list[tuple[str, bytes]]:
    runs = [
        *make_benchmark(label="base", monitoring=MONITORING, energy=ENERGY),
        *make_benchmark(label="new"),
    ]
    files = [(file_name(record), to_json(record).encode()) for record in runs]
    floor, peak = _floor().model_dump_json(), _peak().model_dump_json()
    return [*files, ("a.noise", floor.encode()), ("a.peak", peak.encode())]


def run_command(words: Sequence[str], command: Callable[[list[str]], int] = main) -> None:
    """Run a command line, which must end with 0, 1 or 2, and print no control characters."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command(list(words))
    said = f"{' '.join(words)[:300]} said {err.getvalue()[-1500:]}"
    expect(status in (0, 1, 2), f"exit status {status}: {said}")
    expect("BENCH_TRACEBACK" not in err.getvalue(), said)
    for text in (out.getvalue(), err.getvalue()):
        bad = {letter for letter in text if not letter.isprintable() and letter not in "\n\t "}
        expect(not bad, f"it printed {bad} in {' '.join(words)[:200]}")


# What describes a sweep, a condition, a page


def read_a_matrix(folder: Path, content: bytes) -> None:
    """Read a matrix and make its runs."""
    for run in read_matrix(written(folder, "m.toml", content)).runs()[:100]:
        expect_line(run.name[:900])


def read_a_filter(_: Path, content: bytes) -> None:
    """Parse a condition, and apply it to a row."""
    parse_filter(content.decode(errors="replace"), run_column_names()).holds(_sound_row())


@cache
def _sound_row() -> Any:
    return run_row((None, _sound_record()))


def read_a_request(_: Path, content: bytes) -> None:
    """Parse what a tag says."""
    parse_request(" ".join(content.decode(errors="replace").split()))


def read_a_page(folder: Path, content: bytes) -> None:
    """Check the tags of a page that lies beside records."""
    results = folder / "results"
    results.mkdir()
    for name, text in _sound_files():
        written(results, name, text)
    read_tags(content.decode(errors="replace"))
    for page in check_pages([written(folder, "x.md", content)]):
        for finding in page.findings:
            expect(finding.text.isprintable(), f"a finding is {finding.text[:200]!r}")


def read_options(_: Path, content: bytes) -> None:
    """Parse values of options; each refuses what is not its own."""
    text = content.decode(errors="replace")
    parsers: tuple[Callable[[str], object], ...] = (
        *(parse_price, parse_duration, parse_accuracy, parse_shard),
        *(partial(parse_share, option="--x"), partial(parse_points, option="--x")),
        *(
            partial(parse_columns, known=run_column_names()),
            lambda text: parse_host_place(2, 0, text),
        ),
        lambda text: parse_run_count(text, None, None, None),
        lambda text: with_overrides(
            Matrix(), {"seeds": text, "threads": text, "recipe": None}, None
        ),
        lambda text: with_overrides(Matrix(), {"recipe": text, "device": text}, text),
    )
    for parse in parsers:
        with contextlib.suppress(UsageError):
            value = parse(text)
            expect(value == value, f"{parse} made a NaN of {text[:99]!r}")


# What a process left for another


def logs() -> list[bytes]:
    """A log of a run."""
    record = make_record(run_id="a" * 32)
    with tempfile.TemporaryDirectory() as folder:
        log = FileRunLog(Path(folder) / "log", OutputRequest(results_dir=None), None)
        log.run_begun(record)
        for lap in record.laps[:3]:
            log.lap_over(lap, record.epochs[0], record.evaluations[0])
        log.run_over(record)
        log.record_kept()
        log.runs_printed()
        return [(Path(folder) / "log").read_bytes()]


def read_a_log(folder: Path, content: bytes) -> None:
    """Read the log of a process that has died, and make its records."""
    for run in read_run_log(written(folder, "log", content)).runs:
        run.record_of_the_end("failed", "it died")


def notes() -> list[bytes]:
    """The end of a rank, and the holder of a lock."""
    return [
        b'{"rank": 0, "kind": 1, "what": "a", "at": 1.5}',
        b'{"pid": 1, "host": "a", "started": 1.5}',
    ]


def read_notes(folder: Path, content: bytes) -> None:
    """Read what processes say of themselves in small files."""
    written(folder, "rank-0-X.end", content)
    written(folder, "pyproject.toml", content)
    reported_ends(folder)
    package_version(folder)
    holder = Holder.read(written(folder, "lock", content))
    if holder is not None:
        holder.state()


def manifests() -> list[bytes]:
    """The state of a benchmark."""
    record = make_record()
    run = RunState(
        run_index=1,
        seed=0,
        epoch=1,
        digests=("a" * 64,),
        laps=tuple(record.laps),
        epochs=tuple(record.epochs),
        evaluations=tuple(record.evaluations),
    )
    state = BenchmarkState(benchmark_id="a", every=1, identity={"seed": 0}, current=run)
    return [json.dumps(state.model_dump(mode="json")).encode()]


def read_manifest(folder: Path, content: bytes) -> None:
    """Read the state of a benchmark whose sum is right."""
    digest = hashlib.sha256(content).hexdigest().encode()
    written(folder, "benchmark.json", digest + b"\n" + content)
    journal = JournalFolder(folder)
    try:
        state = journal.manifest()
        if state is not None:
            journal.write(state)
            expect(journal.manifest() == state, "not what was written")
    finally:
        journal.release()


# What the system says of itself


def read_machine(folder: Path, content: bytes) -> None:
    """Read what Linux, macOS, drivers and git say."""
    text = content.decode(errors="replace")
    cpus = folder / "devices" / "cpu"
    files = ("cache/index0/size", "cache/index0/level", "cache/index0/type", "cpu_capacity")
    more = ("cpufreq/cpuinfo_max_freq", "topology/thread_siblings_list")
    for core in ("cpu0", "cpu1"):
        for name in (*files, *more):
            (cpus / core / name).parent.mkdir(parents=True, exist_ok=True)
            written(cpus / core, name, content)
    for name in ("cpu.max", "cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us", "membership"):
        written(folder, name, content)
    for kind in ("cpu_core", "cpu_atom"):
        (folder / kind).mkdir()
        written(folder / kind, "cpus", content)
    processor.processor_of_linux(text, cpus, None)
    processor.processor_of_macos(text, None)
    for membership in (folder / "membership", written(folder, "root", b"0::/\n4:cpu:/\n")):
        cores.cgroup_quota_cores(membership, folder)
        cores.cgroup_throttled_seconds(membership, folder)
    nvidia_driver(text)
    apple_gpu_cores(text)
    read_field(text, "model name")
    (folder / "intel-rapl:0").mkdir()
    written(folder, "intel-rapl:0/name", b"package-0")
    for name in ("energy_uj", "max_energy_range_uj"):
        written(folder, f"intel-rapl:0/{name}", content)
    with contextlib.suppress(NotReported):
        energy.cpu_counters(folder)()
    repository.asserted_parameters(text)
    repository.defined_recipes(text)


def read_for_leaks(_: Path, content: bytes) -> None:
    """Look for private data in a text."""
    list(find_leaks(content.decode(errors="replace"), ("alice",)))
