"""`mnist-bench run` through its command line: bad input first, real runs where marked slow."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from bench.cli import main
from bench.measure.clock import DeviceClock
from bench.measure.plan import choose_recipe
from bench.records.machine_key import MachineKey
from bench.records.store import read_records
from mnist_cnn.kernels import native
from tests.commands import BIN, PYTHON, ROOT, SHORT_RUN, clean_environment, launch
from tests.stand_ins import FEW_IMAGES, FEWER_IMAGES

WAYS = ("forward", "backward")


WILD = """
import sys
from dataclasses import replace
from mnist_cnn import recipe

recipe.RECIPES["wild"] = replace(
    recipe.FAST, name="wild", peak_learning_rate=1e30, average_decay=0.0
)
from bench.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_device_that_refuses_its_first_work_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A GPU whose memory others hold: stood in for, there being none here."""

    def refuse(self: DeviceClock) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB\nmore")

    monkeypatch.setattr(DeviceClock, "check", refuse)
    assert main(["run", "--device", "cpu", "--results-dir", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert "the device cannot be used: CUDA out of memory. Tried to allocate 2.00 MiB; see" in said
    assert said.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


def test_a_device_gets_the_recipe_that_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, name in (("cpu", "fast"), ("cuda", "fast-gpu"), ("mps", "fast-gpu")):
        monkeypatch.setattr("bench.measure.plan.choose_device", lambda asked, device=device: device)
        assert choose_recipe("auto") == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "fats"], "unknown recipe 'fats' (did you mean 'fast'?); there are: fast, "),
        (["--device", "cdua"], "unknown device 'cdua' (did you mean 'cuda'?); there are: auto, "),
        (["--precision", "bf61"], "unknown precision 'bf61' (did you mean 'bf16'?)"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 is not computed on a CPU"),
        (["--pipeline", "lodaer"], "unknown pipeline 'lodaer' (did you mean 'loader'?)"),
        (["--runs", "0"], "--runs must be at least 1, not 0"),
        (["--runs", "three"], "--runs"),
        (["--epochs", "0"], "epochs must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["--threads", "0"], "--threads must be 1 to "),
        (["--threads", "100000"], "--threads must be 1 to "),
        (["--target-accuracy", "0"], "such as 99.4 or a fraction such as 0.994, not '0'"),
        (["--target-accuracy", "101"], "such as 99.4 or a fraction such as 0.994, not '101'"),
        (["--target-accuracy", "abc"], "such as 99.4 or a fraction such as 0.994, not 'abc'"),
        (["--no-such-option"], "--no-such-option"),
        # A dry run, too, which would only print them.
        (["--dry-run", "--epochs", "1" + "0" * 30], "'--epochs': it must be "),
        (
            ["--dry-run", "--epochs", "1000001"],
            "'--epochs': it must be at most 1000000, not 1000001",
        ),
        (["--dry-run", "--batch-size", "1" + "0" * 12], "'--batch-size': it must be at most 60000"),
        (["--dry-run", "--seed", "1_0"], "'--seed': it must be a whole number, not '1_0'"),
        (["--dry-run", "--seed", "1e3"], "'--seed': it must be a whole number, not '1e3'"),
        (["--dry-run", "--processes", "1" + "0" * 12], "--processes must be at most 10000, not 1"),
        (["--dry-run", "--processes", "1_0"], "--processes must be a whole number or auto"),
        (["--dry-run", "--runs", "1" + "0" * 12], "--runs must be at most 1000000, not 1"),
        (["--dry-run", "--runs", "auto", "--budget", "-5"], "--budget takes a time, such as 90s"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", "--results-dir", str(tmp_path / "results"), *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("mnist-bench: error: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_names_and_numbers_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """The default recipe depends on the device, which torch knows: these are refused before."""
    code = (
        "import sys; from bench.cli import main; "
        "print([main(['run', '--no-save', *words.split()]) for words in sys.argv[1:]], "
        "'torch' in sys.modules)"
    )
    words = ["--precision fp64", "--kernels foo", "--device foo", "--processes 0", "--processes no"]
    ended = launch([PYTHON, "-c", code, *words], tmp_path)
    assert ended.stdout == "[2, 2, 2, 2, 2] False\n", ended.stderr


def test_an_absent_device_is_refused_and_the_present_ones_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    absent = next(
        d for d in ("cuda", "xpu", "mps") if not torch.get_device_module(d).is_available()
    )
    assert main(["run", "--no-save", "--device", absent]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"error: no {absent} device found by torch \S+; present: cpu", error)


def test_an_unwritable_results_folder_is_found_out_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["run", "--results-dir", str(tmp_path / "file" / "results")]) == 2
    error = capsys.readouterr().err
    assert "cannot write to the results folder" in error
    assert error.count("\n") == 1


def test_no_data_and_no_network_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "--offline", "--data-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--from" in error


# Real runs, short ones. Each is a process of its own: Accelerate's state is one a process.


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [BIN / "accelerate", "launch", "bench/run.py"],
        pytest.param([BIN / "accelerate", "launch", "-m", "bench.run"], marks=pytest.mark.thorough),
        pytest.param([PYTHON, "-m", "bench.run"], marks=pytest.mark.thorough),
        pytest.param([PYTHON, "bench/run.py"], marks=pytest.mark.thorough),
        [BIN / "mnist-bench", "run"],
    ],
    ids=lambda command: "-".join(Path(word).name for word in command),
)
def test_every_way_to_start_it_runs(command: list[object]) -> None:
    done = launch([*command, *SHORT_RUN, "--no-save", "--json"], **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert (run["status"], run["processes"], run["epochs"]) == ("completed", 1, 3)
    assert run["final_accuracy"] > 0
    assert run["time_to_target_seconds"] is None


@pytest.mark.slow
def test_a_record_says_which_machine_it_was_and_how_fast(tmp_path: Path) -> None:
    words = [BIN / "mnist-bench", "run", *SHORT_RUN, "--quiet", "--results-dir", tmp_path]
    done = launch(words, **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    ((path, record),) = read_records([tmp_path]).records
    assert record.calibration is not None
    assert "1 thread" in record.calibration.work
    key = MachineKey.of(record.environment)
    if key.digest is not None:
        assert path.parent.name.endswith(f"-{key.digest}")
    assert record.environment.source_sha256 is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)]
)
def test_an_interrupted_run_leaves_a_record_of_what_it_did(
    number: signal.Signals, tmp_path: Path
) -> None:
    # So many epochs that it cannot be over before the signal comes, however busy the machine is.
    command = [BIN / "mnist-bench", "run", "--runs", "2", "--epochs", "5000", "--threads", "1"]
    with subprocess.Popen(
        [str(word) for word in (*command, "--results-dir", tmp_path)],
        cwd=ROOT,
        env=clean_environment() | {"CI": "true"} | FEW_IMAGES,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "epoch 1 of 5000" in line:
                    break
            process.send_signal(number)
            process.send_signal(number)  # supervisors often send two
            output, error = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    ((_, record),) = read_records([tmp_path]).records
    assert record.status == "interrupted"
    assert record.reason == f"ended by {number.name}"
    assert [e.epoch for e in record.epochs][:1] == [1]
    assert "interrupted" in output


@pytest.mark.slow
def test_stop_at_target_ends_the_run_and_the_table_says_so(tmp_path: Path) -> None:
    # The reference is evaluated after every epoch, `fast` only after its last.
    recipe = ["--recipe", "reference", "--pipeline", "resident", "--precision", "bf16"]
    options = ["--runs", "1", "--epochs", "3", "--threads", "1", "--stop-at-target"]
    # Guessing one digit for all images would do.
    target = ["--target-accuracy", "5", "--results-dir", tmp_path]
    done = launch([BIN / "mnist-bench", "run", *recipe, *options, *target], **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    ((_, record),) = read_records([tmp_path]).records
    assert (record.status, record.target_reached_epoch, len(record.epochs)) == ("completed", 1, 1)
    assert "without --stop-at-target" in " ".join(done.stdout.split())


@pytest.mark.thorough
def test_a_diverged_run_of_two_ranks_has_a_record_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(WILD)
    ranks = [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", tmp_path / "wild.py"]
    options = ["run", "--recipe", "wild", *SHORT_RUN, "--results-dir", tmp_path]
    done = launch([*ranks, *options], **FEWER_IMAGES)
    assert done.returncode != 0
    ((_, record),) = read_records([tmp_path]).records
    assert (record.status, record.setup.processes) == ("diverged", 2)
    assert "diverged" in done.stdout


@pytest.mark.slow
def test_a_diverged_run_has_a_record_and_exit_1(tmp_path: Path) -> None:
    options = ["run", "--recipe", "wild", *SHORT_RUN, "--results-dir", tmp_path]
    done = launch([PYTHON, "-c", WILD, *options], **FEWER_IMAGES)
    assert done.returncode == 1, done.stderr
    ((_, record),) = read_records([tmp_path]).records
    assert record.status == "diverged"
    assert record.epochs[-1].loss is None
    assert "diverged" in done.stdout


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_neither_record_nor_table(tmp_path: Path) -> None:
    if not shutil.which("unshare") or launch(["unshare", "-Urm", "true"]).returncode:
        pytest.skip("needs user and mount namespaces to make a small disk")
    results = tmp_path / "results"
    results.mkdir()
    # Room for the 256 KiB that are written to try the folder, but not for a record with this label,
    # each character of which takes two in JSON.
    script = (
        f"mount -t tmpfs -o size=300k tmpfs {results} || exit 77\n"
        """label=$(printf '%100000s' '' | tr ' ' '"')\n"""
        f'{BIN}/mnist-bench run {" ".join(SHORT_RUN)} --runs 2 --label "$label" '
        f"--results-dir {results}\n"
        "status=$?\n"
        f"find {results} -name '*.json' -o -name '*.tmp'\n"
        "exit $status\n"
    )
    variables = {"XDG_STATE_HOME": str(tmp_path / "state"), **FEWER_IMAGES}
    done = launch(["unshare", "-Urm", "sh", "-c", script], tmp_path, **variables)
    if done.returncode == 77:
        pytest.skip("mounting a small disk is not allowed here")
    assert done.returncode == 1, done.stderr
    assert "could not be saved" in done.stderr
    assert "Traceback" not in done.stderr
    assert "fast" in done.stdout  # the table
    assert ".json" not in done.stdout.split("fast")[-1]
    ((_, record),) = read_records([tmp_path / "state"]).records
    assert (record.run_index, record.status) == (1, "completed")
    assert "seed 1" not in done.stderr, "the second run is not trained"


@pytest.mark.thorough
def test_a_profile_is_a_trace_and_the_costliest_operations(
    mnist_data_dir: Path, tmp_path: Path
) -> None:
    """Measuring nothing: no record."""
    path = tmp_path / "trace.json"
    options = ["--profile", path, "--kernels", "torch", "--threads", "1"]
    done = launch([BIN / "mnist-bench", "run", *options], tmp_path, **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["operation", "share", "seconds", "calls"]
    assert len(lines) == 12
    shares = [float(line[47:54].rstrip("% ")) for line in lines[1:11]]
    assert shares == sorted(shares, reverse=True)
    assert any("convolution" in line for line in lines)
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert "aten::convolution_backward" in names
    assert not (tmp_path / "results").exists()


PROFILE = f"{BIN}/mnist-bench run --kernels torch --device cpu --threads 1 --profile"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="has no such limits")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        # The library that writes the trace does not say that it could not.
        (f"ulimit -f 8; exec {PROFILE} trace.json", "torch could not write it"),
        pytest.param(
            f"mount -t tmpfs -o size=8k tmpfs . || exit 77; cd $PWD; {PROFILE} trace.json.gz; "
            "status=$?; ls -A; exit $status",
            "No space left on device): free some space there",
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["limit", "full disk"],
)
def test_a_trace_that_cannot_be_written_is_one_line_after_the_table(
    script: str, reason: str, mnist_data_dir: Path, tmp_path: Path
) -> None:
    command = ["sh", "-c", f'cd "$1" || exit; {script}', "sh", str(tmp_path)]
    if "mount" in script:
        if not shutil.which("unshare") or launch(["unshare", "-Urm", "true"]).returncode:
            pytest.skip("needs user and mount namespaces to make a small disk")
        command = ["unshare", "-Urm", *command]
    done = launch(command, tmp_path, **FEWER_IMAGES)
    if done.returncode == 77:
        pytest.skip("mounting a small disk is not allowed here")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("operation ")
    assert "trace" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("mnist-bench: error: the trace trace.json")
    assert reason in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(native.unavailable_reason() is not None, reason="no compiled code here")
def test_a_profile_of_compiled_code_names_its_layers(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    options = ["--profile", path, "--device", "cpu", "--threads", "1"]
    done = launch([BIN / "mnist-bench", "run", *options], tmp_path, **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("layer of"))
    layers = {line[:46].strip(): float(line[54:]) for line in lines[start + 1 : start + 15]}
    assert set(layers) == {f"{name} {way}" for name in native.LAYERS for way in WAYS}
    assert list(layers.values()) == sorted(layers.values(), reverse=True)
    assert min(layers.values()) > 0


def test_a_trace_that_could_not_be_written_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", "--profile", str(tmp_path / "no" / "trace.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "make it first" in error
    assert main(["run", "--profile", "/dev/null"]) == 2
    assert "not a regular file; name another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "3m"], "--budget is for --runs auto"),
        (["--half-width", "3%"], "--half-width is for --runs auto"),
        (["--max-runs", "9"], "--max-runs is for --runs auto"),
        (["--runs", "auto", "--max-runs", "0"], "--max-runs must be at least 1, not 0"),
        (["--runs", "many"], "--runs must be a whole number or auto, not 'many'"),
    ],
)
def test_how_many_runs_is_asked_for_in_one_way(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["run", *words]) == 2
    assert message in capsys.readouterr().err
