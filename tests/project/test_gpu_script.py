"""`scripts/gpu` without a GPU: what it would run, by a Python that only logs its arguments."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.commands import BIN, ROOT, launch

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def load_script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu_steps, gpu_session = map(load_script, ("gpu_steps", "gpu_session"))

# The plan itself is run by the real Python, what it starts is only logged.
LOGS = f"""#!/bin/sh
case "$*" in
*scripts/gpu_session.py*) exec '{sys.executable}' "$@" ;;
esac
printf '%s\\n' "$*" | tr '\\n' ' ' >>"$LOG"
echo >>"$LOG"
case "$*" in
*no_cluster*) echo '{{"missing": [], "gpus": 2, "no_cluster": null}}' ;;
*--results-dir*gpu-variants*) folder=results/local/gpu-variants/nvidia-h200 ;;
*--results-dir*) folder=results/local/nvidia-h200 ;;
esac
[ -z "$folder" ] || mkdir -p "$folder"
case "$*" in
*broken*) cp "$BROKEN" "$folder/a.json" ;;
*--label' 'energy*) cp "$ENERGY" "$folder/b.json" ;;
*--results-dir*) echo '{{}}' >"$folder/$$.json" ;;
esac
"""
FELL_BACK = {
    "label": "broken assembler",
    "setup": {"kernels": "torch", "fallbacks": [{"kernels": "triton"}]},
}
HAS_JOULES = {"label": "energy", "energy": {"device": {"joules": 900.0, "source": "NVML"}}}
MOST_FILES = 8
"""Number of files that come back from a lent machine."""


@dataclass
class Copy:
    """A copy of the script, with a Python of its own."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def command(self, *steps: str) -> list[Path | str]:
        return [self.folder / "scripts/gpu", "../data", "../output", *steps]

    def environment(self, **variables: str) -> dict[str, str]:
        files = {"LOG": self.log, "BROKEN": self.folder / "a", "ENERGY": self.folder / "b"}
        fixed = {"PATH": f"{self.folder}:/usr/bin:/bin", "PYTHON": str(self.folder / "python")}
        return fixed | {name: str(file) for name, file in files.items()} | variables

    def run(self, *steps: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*steps),
            cwd=self.folder / "elsewhere",
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )

    def first(self, lines: str) -> None:
        """Have the Python do this before it logs anything."""
        self.replace("python", "printf '%s", f"{lines}\nprintf '%s")

    def replace(self, name: str, old: str, new: str) -> None:
        """Change a file."""
        file = self.folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def without_packages(self) -> None:
        """Have the Python be one that has only its own library."""
        (self.folder / "python").write_text(f"#!/bin/sh\nexec '{sys.executable}' -S \"$@\"\n")

    def archived(self) -> set[str]:
        with tarfile.open(self.output / "records.tar.gz") as archive:
            return set(archive.getnames())

    def outcomes(self) -> dict[str, str]:
        """What came of each step, by its name."""
        lines = (self.output / "steps.txt").read_text().splitlines()
        return {line.split()[0]: line.split(" s  ", 1)[1] for line in lines}


def copy_into(folder: Path) -> Copy:
    for name in ("scripts", "data", "elsewhere"):
        (folder / name).mkdir(parents=True)
    for name in ("gpu", "gpu_steps.py", "gpu_session.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    (folder / "tests").symlink_to(ROOT / "tests")
    for name in gpu_session.IDX_FILES:
        (folder / "data" / name).write_text(name)
    for name, content in (("python", LOGS), ("compute-sanitizer", '#!/bin/sh\nexec "$PYTHON"\n')):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    (folder / "a").write_text(json.dumps(FELL_BACK))
    (folder / "b").write_text(json.dumps(HAS_JOULES))
    return Copy(folder)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return copy_into(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """After a call of all steps."""
    copy = copy_into(tmp_path_factory.mktemp("gpu"))
    done = copy.run()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return copy


@pytest.fixture(scope="module")
def lines(whole: Copy) -> list[list[str]]:
    """The words of each command."""
    return [line.split() for line in whole.log.read_text().splitlines()]


# What is run


def find_tests_that_need_a_gpu() -> Iterator[tuple[str, str]]:
    for file in (ROOT / "tests").rglob("test_*.py"):
        name, text = file.relative_to(ROOT).as_posix(), file.read_text("utf-8")
        is_timing = name.startswith("tests/benchmarks/")
        if "not torch.cuda.is_available()" in text and file != Path(__file__) and not is_timing:
            yield name, text


@cache
def help_of(command: str) -> str:
    return launch([BIN / "mnist-bench", command, "--help"], COLUMNS="200").stdout


@pytest.mark.slow
def test_every_option_exists(lines: list[list[str]]) -> None:
    for words in lines:
        match words:
            case ["-W", "ignore", "bench/run.py", *options] | ["bench/run.py", *options]:
                text = help_of("run")
            case ["-m", "bench", command, *options]:
                text = help_of(command)
            case _:
                continue
        for option in [word for word in options if word.startswith("--")]:
            assert option in text.replace("--[no-]", "--no-"), option


def test_every_step_has_run(whole: Copy) -> None:
    outcomes = whole.outcomes()
    assert list(outcomes) == ["packages", *(s.name for s in gpu_steps.all_steps(2)), "verify"]
    assert set(outcomes.values()) == {"done"}


def test_tests_that_it_names_exist_and_are_all_that_need_a_gpu(lines: list[list[str]]) -> None:
    commands = [words for words in lines if words[:2] == ["-m", "pytest"]]
    assert commands
    named = set()
    for words in commands:
        files = {word for word in words if word.endswith(".py")}
        assert files
        assert all((ROOT / name).is_file() for name in files)
        named |= files
    assert named == {file for file, _ in find_tests_that_need_a_gpu()}


@pytest.mark.parametrize("file", [file for file, _ in find_tests_that_need_a_gpu()])
def test_every_test_that_needs_a_gpu_has_the_marker(file: str) -> None:
    """The script finds tests by it."""
    text = (ROOT / file).read_text("utf-8")
    if re.search(r"^pytestmark = \[\n    pytest\.mark\.gpu,", text, re.MULTILINE):
        return
    needs = r"^@CUDA$|^    if not torch\.cuda\.is_available\(\):"
    assert text.count("@pytest.mark.gpu\n") == len(re.findall(needs, text, re.MULTILINE))


def test_no_record_will_hold_a_path_of_the_machine(lines: list[list[str]]) -> None:
    runs = [words for words in lines if "--results-dir" in words]
    folders = {words[words.index("--results-dir") + 1] for words in runs}
    assert folders == {"results/local", "results/local/gpu-variants"}
    for words in runs:
        assert not [word for word in words if word.startswith("/")]
        # What stands for the machine has no label; an experiment has one.
        is_official = words[words.index("--results-dir") + 1] == "results/local"
        assert ("--label" in words) is not is_official


def test_groups_and_steps_can_be_named(copy: Copy) -> None:
    assert copy.run("first", "races").returncode == 0
    assert list(copy.outcomes()) == ["packages", "cold", "cold-cached", "races", "verify"]
    done = copy.run("frist")
    assert done.returncode == 2
    assert "there is no step 'frist'; there are: closed, " in done.stderr


def test_help_needs_no_package_and_has_every_step(copy: Copy) -> None:
    copy.without_packages()
    done = copy.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for step in gpu_steps.all_steps(2):
        row = rf"^  {step.name} +{step.group} +{step.seconds} s{', spare' * step.is_spare}$"
        assert re.search(row, done.stdout, re.MULTILINE), row


# Time


def test_the_limits_are_less_than_eight_minutes_together() -> None:
    steps = (gpu_steps.look_step(), *gpu_steps.all_steps(1), gpu_steps.verify_step([]))
    assert sum(step.seconds for step in steps if not step.is_spare) <= 480
    assert gpu_session.TOTAL_SECONDS == 480
    assert all(step.seconds > gpu_session.GRACE_SECONDS for step in steps)


def test_a_step_at_its_limit_does_not_end_the_script(copy: Copy) -> None:
    copy.replace("scripts/gpu_steps.py", '"machine", 25', '"machine", 6')
    copy.replace("scripts/gpu_steps.py", '"races", 100', '"races", 6')
    copy.first("case $* in *--peak* | '') sleep 60 ;; esac")  # the checker starts no command here
    done = copy.run("machine", "races", "fast-gpu")
    assert done.returncode == 1
    outcomes = copy.outcomes()
    assert outcomes["machine"] == outcomes["races"] == "interrupted at its limit"
    assert outcomes["fast-gpu"] == outcomes["verify"] == "done"


def test_a_spare_step_at_its_limit_is_no_failure(copy: Copy) -> None:
    copy.replace("scripts/gpu_steps.py", '"races", 100', '"races", 6')
    copy.first("case $* in '') sleep 60 ;; esac")
    assert copy.run("races").returncode == 0
    assert copy.outcomes()["races"] == "interrupted at its limit"


def test_spare_steps_run_where_time_is_left(copy: Copy) -> None:
    copy.replace("scripts/gpu_session.py", "TOTAL_SECONDS = 480", "TOTAL_SECONDS = 60")
    assert copy.run().returncode == 0
    outcomes = copy.outcomes()
    for step in gpu_steps.all_steps(2):
        fits = step.seconds < 40 or not step.is_spare
        assert fits == (outcomes[step.name] == "done") or 40 <= step.seconds <= 50
    assert outcomes["closed-fp32"] == "not run: no time left"
    assert outcomes["verify"] == "done"


def test_what_fails_is_said_and_the_next_step_runs(copy: Copy) -> None:
    copy.first("case $* in *--no-capture*) echo 'no such device'; exit 1 ;; esac")
    done = copy.run("gains")
    assert done.returncode == 1
    assert "no such device" in done.stdout
    assert copy.outcomes()["eager"] == "failed: exit status 1"
    assert copy.outcomes()["inductor"] == "done"


@pytest.mark.parametrize(
    ("facts", "step", "reason"),
    [
        ('"gpus": 1, "no_cluster": null', "joined", "there is one GPU"),
        ('"gpus": 2, "no_cluster": "it is old"', "cluster", "it is old"),
    ],
)
def test_what_the_machine_lacks_is_the_reason(
    facts: str, step: str, reason: str, copy: Copy
) -> None:
    copy.replace("python", '"gpus": 2, "no_cluster": null', facts)
    assert copy.run(step, "first").returncode == 0
    assert copy.outcomes()[step] == f"not run: {reason}"
    assert copy.outcomes()["cold"] == "done"


def test_a_missing_checker_is_no_failure(copy: Copy) -> None:
    (copy.folder / "compute-sanitizer").unlink()
    assert copy.run("races").returncode == 0
    assert copy.outcomes()["races"] == "not run: compute-sanitizer is not installed"


# What records must say


def test_a_fallback_that_is_not_recorded_is_a_failure(copy: Copy) -> None:
    setup = {"kernels": "triton", "fallbacks": []}
    (copy.folder / "a").write_text(json.dumps(FELL_BACK | {"setup": setup}))
    assert copy.run("fallback").returncode == 1
    assert copy.outcomes()["fallback"] == (
        "failed: the record says that triton trained, and that these failed: []"
    )


def test_a_long_run_without_joules_is_a_failure(copy: Copy) -> None:
    device = {"joules": None, "source": "nvidia-ml-py is not installed"}
    (copy.folder / "b").write_text(json.dumps(HAS_JOULES | {"energy": {"device": device}}))
    assert copy.run("energy").returncode == 1
    assert copy.outcomes()["energy"] == "failed: no joules: nvidia-ml-py is not installed"


@pytest.mark.slow
def test_triton_takes_the_broken_assembler_and_fails(tmp_path: Path) -> None:
    """Compiling for an H100 needs none."""
    pytest.importorskip("triton", reason="the package triton is not installed")
    (step,) = [step for step in gpu_steps.all_steps(1) if step.name == "fallback"]
    file = tmp_path / "ptxas"
    file.write_text(gpu_session.BROKEN_PTXAS)
    file.chmod(0o755)
    variables = {name: text.format(temporary=tmp_path) for name, text in step.variables.items()}
    command = [sys.executable, "scripts/triton_targets.py", "sm_90", "--precision", "bf16"]
    done = launch(command, **variables)
    assert "error: PTXASError: PTXAS error" in done.stderr
    assert "scripts/gpu has no assembler" in done.stdout


# What is kept


def test_few_files_come_back(whole: Copy) -> None:
    files = [file for file in whole.output.rglob("*") if file.is_file()]
    names = {file.relative_to(whole.output).as_posix() for file in files}
    assert names == {"records.tar.gz", "steps.txt"}
    assert len(names) <= MOST_FILES


def test_the_archive_has_records_and_logs_where_they_were(whole: Copy) -> None:
    names = whole.archived()
    for folder in ("nvidia-h200", "gpu-variants/nvidia-h200"):
        assert any(name.startswith(f"results/local/{folder}/") for name in names)
    assert {f"scratch/gpu/{step.name}.txt" for step in gpu_steps.all_steps(2)} <= names
    assert all((whole.folder / name).is_file() for name in names)


def test_a_second_call_adds_its_records_to_the_others(copy: Copy) -> None:
    copy.run("fast-gpu")
    first = {name for name in copy.archived() if name.startswith("results/")}
    copy.run("fast-gpu")
    second = {name for name in copy.archived() if name.startswith("results/")}
    assert first < second
    assert {Path(name).parent.as_posix() for name in second} == {"results/local/nvidia-h200"}


def test_a_large_profile_stays_out_of_the_archive(copy: Copy) -> None:
    copy.first(
        "case $* in *--profile*) head -c 5000000 /dev/zero >scratch/gpu/trace.json.gz ;; esac"
    )
    copy.run("profile")
    assert "scratch/gpu/trace.json.gz" not in copy.archived()
    table = (copy.output / "steps.txt").read_text()
    assert table.endswith("too large for the archive: scratch/gpu/trace.json.gz\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_was_measured_is_kept_when_it_is_ended(number: signal.Signals, copy: Copy) -> None:
    waits = (
        "mkdir -p results/local/nvidia-h200 && touch results/local/nvidia-h200/1.json && sleep 9"
    )
    copy.first(f"case $* in *'--runs 40'*) {waits} ;; esac")
    with subprocess.Popen(
        copy.command("machine", "fast-gpu"),
        cwd=copy.folder / "elsewhere",
        env=copy.environment(TMPDIR=str(copy.folder)),
        stdout=subprocess.DEVNULL,
    ) as script:
        wait_for(copy.folder / "results/local/nvidia-h200/1.json")
        script.send_signal(number)
    names, outcomes = copy.archived(), copy.outcomes()
    assert outcomes["machine"] == "done"
    assert "scratch/gpu/machine.txt" in names
    if number == signal.SIGKILL:
        assert script.returncode == -number
        return
    assert script.returncode == 128 + number
    assert outcomes["fast-gpu"] == "ended from outside"
    assert "results/local/nvidia-h200/1.json" in names
    assert not list(copy.folder.glob("gpu-*"))
    assert len(list(copy.output.iterdir())) <= MOST_FILES


def wait_for(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"no {file.name}")


# What it needs


def test_missing_packages_are_named_in_one_line(copy: Copy) -> None:
    copy.without_packages()
    done = copy.run()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    found = re.fullmatch(r"scripts/gpu: missing packages: (.*); --help says how .*", line)
    assert found is not None
    assert {"pydantic", "typing-inspection", "platformdirs", "torch"} <= set(found[1].split())


def test_packages_travel_as_wheels(copy: Copy) -> None:
    copy.without_packages()
    (copy.folder / "wheels").mkdir()
    for module in ("platformdirs", "typing_inspection"):
        wheel = copy.folder / "wheels" / f"{module}-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{module}/__init__.py", "")
    done = copy.run(WHEELS="../wheels")
    assert done.returncode == 2
    missing = done.stderr.partition(";")[0].split()
    assert "pydantic" in missing
    assert not {"platformdirs", "typing-inspection"} & set(missing)


def test_a_folder_without_wheels_is_refused(copy: Copy) -> None:
    done = copy.run(WHEELS="../data")
    assert done.returncode == 2
    assert re.fullmatch(r"scripts/gpu: there is no wheel in /.*/data\n", done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_run(copy: Copy) -> None:
    """By a Python that has all packages: so their names are right."""
    (copy.folder / "mnist_cnn").symlink_to(ROOT / "mnist_cnn")
    done = copy.run(PYTHON=sys.executable)
    assert (done.returncode, done.stderr) == (2, "scripts/gpu: there is no GPU\n")
    assert list(copy.outcomes()) == ["packages"]


@pytest.mark.parametrize("folder", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_data_are_found_as_torchvision_has_them(folder: str, is_packed: bool, copy: Copy) -> None:
    data = copy.folder / "data"
    (data / folder).mkdir(parents=True, exist_ok=True)
    for name in gpu_session.IDX_FILES:
        (data / name).rename(data / folder / name)
        if is_packed:
            content = (data / folder / name).read_bytes()
            (data / folder / f"{name}.gz").write_bytes(gzip.compress(content))
            (data / folder / name).unlink()
    copy.first('case $* in *--peak*) (cd "$MNIST_DATA_DIR" && grep "" *) ;; esac')
    assert copy.run("machine").returncode == 0
    read = (copy.folder / "scratch/gpu/machine.txt").read_text().split()
    assert set(read) == {f"{name}:{name}" for name in gpu_session.IDX_FILES}


def test_data_that_are_not_whole_are_refused(copy: Copy) -> None:
    (copy.folder / "data" / gpu_session.IDX_FILES[1]).unlink()
    done = copy.run()
    assert done.returncode == 2
    assert f"there is no {gpu_session.IDX_FILES[1]}, gzipped or not, in " in done.stderr
