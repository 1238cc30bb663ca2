"""`python -m mnist_cnn train` in this process, on a few images."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from mnist_cnn import recipe as recipes, train as training
from mnist_cnn.__main__ import main
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.events import EpochTrained, Evaluated, Event, Finished
from mnist_cnn.inference.weights import load_provenance, load_weights
from mnist_cnn.process import ENDING_SIGNALS, end_on_signals
from mnist_cnn.recipe import FAST, REFERENCE
from tests.mnist_cnn.program import (
    CPU,
    FEW,
    RANK_OF_TWO,
    Output,
    environment,
    refused,
)


@pytest.fixture
def few_images(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch, fresh_accelerate: None
) -> Iterator[None]:
    """Train on 512 images, on the CPU, in this process."""
    few = replace(
        mnist,
        train_images=mnist.train_images[:512],
        train_labels=mnist.train_labels[:512],
        test_images=mnist.test_images[:200],
        test_labels=mnist.test_labels[:200],
    )
    monkeypatch.setattr("mnist_cnn.data.dataset.load", lambda folder: few)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_train_prints_a_line_an_epoch_and_saves(capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    words = ["--epochs", "2", "--pipeline", "resident", "--target-accuracy", "0.02"]
    assert main([*words, "--save", str(path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    head, first, second, outcome, saved = said.out.splitlines()
    assert head == "recipe reference: 2 epochs, batch 128, seed 0, on cpu x 1"
    assert first.startswith("epoch 1/2  loss ")
    assert second.startswith("epoch 2/2  loss ")
    assert " %  reaches the target" in second
    assert outcome.startswith("2 % reached at epoch 1; final accuracy ")
    assert saved == f"saved {path}"
    assert second.split("accuracy ")[1].startswith(outcome.split("accuracy ")[1])
    load_weights(path)
    training = load_provenance(path)
    assert training is not None
    assert (training.recipe, training.epochs, training.seed) == ("reference", 2, 0)
    assert (training.target_accuracy, training.device, training.processes) == (0.02, "cpu", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_the_same_seed_trains_the_same_network(capsys: Output, tmp_path: Path) -> None:
    files = []
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        path = tmp_path / name
        words = ["train", "--recipe", "fast", "--epochs", "1", "--seed", str(seed)]
        assert main([*words, "--save", str(path)]) == 0
        assert "99.4 % not reached: at best " in capsys.readouterr().out
        files.append(path.read_bytes())
    one, again, other = files
    assert one == again != other


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_training_that_diverges_is_one_line_and_exit_1(
    capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(FAST.with_epochs(1), name="wild", peak_learning_rate=1e30, average_decay=0.0)
    monkeypatch.setitem(recipes.RECIPES, "wild", wild)
    path = tmp_path / "model.safetensors"
    assert main(["--recipe", "wild", "--save", str(path)]) == 1
    said = capsys.readouterr()
    assert said.err == "mnist_cnn: training diverged in epoch 1: its loss is nan\n"
    assert len(said.out.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_before_training(
    capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["--recipe", "fast", "--save", str(tmp_path / "model.safetensors")]) == 2
    assert "No space left on device" in refused(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def vanishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is removed while the network is trained."""
    folder = tmp_path / "my results"
    folder.mkdir()
    train = training.train

    def train_and_remove(*given: Any) -> Iterator[Event]:
        yield from train(*given)
        folder.rmdir()

    monkeypatch.setattr(training, "train", train_and_remove)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_weights_that_cannot_be_saved_are_kept_and_the_line_brings_them_back(
    capsys: Output, vanishing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "my state"))
    path = vanishing / "model.safetensors"
    assert main(["--recipe", "fast", "--epochs", "1", "--save", str(path)]) == 1
    said = capsys.readouterr()
    assert "final accuracy" in said.out
    assert said.err.count("\n") == 1
    assert said.err.startswith(f"mnist_cnn: error: cannot write {path}: No such file or directory")
    assert "make the folder" in said.err
    vanishing.mkdir()
    subprocess.run(["sh", "-c", said.err.strip().rpartition("; then: ")[2]], check=True)
    assert load_provenance(path) is not None


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="where temporary files go differs")
@pytest.mark.usefixtures("few_images")
def test_weights_that_no_folder_takes_are_said_to_be_lost(
    capsys: Output, vanishing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    path = vanishing / "model.safetensors"
    assert main(["--recipe", "fast", "--epochs", "1", "--save", str(path)]) == 1
    assert "the weights are lost: no other folder takes them" in capsys.readouterr().err


@pytest.mark.usefixtures("few_images")
def test_ctrl_c_is_one_line_and_exit_130_and_writes_nothing(
    capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> Iterator[Event]:
        yield EpochTrained(1, 4, 512, 0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr("mnist_cnn.train.train", interrupted)
    path = tmp_path / "model.safetensors"
    path.write_text("the old one")
    assert main(["--epochs", "2", "--save", str(path)]) == 130
    assert capsys.readouterr().err == f"mnist_cnn: interrupted; {path} was not written\n"
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [
        (path.name, "the old one")
    ]


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_that_somebody_swallowed_is_heeded_at_the_next_event(
    number: signal.Signals, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowing(*given: object) -> Iterator[Event]:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        yield EpochTrained(1, 4, 512, 0.5)
        pytest.fail("went on")

    monkeypatch.setattr("mnist_cnn.train.train", swallowing)
    monkeypatch.setattr("mnist_cnn.process._state", {"asked": "", "raises": "always"})
    before = {one: signal.getsignal(one) for one in ENDING_SIGNALS}
    try:
        end_on_signals()
        assert main(["--epochs", "2"]) == 130
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert capsys.readouterr().err == "mnist_cnn: interrupted\n"


@pytest.mark.usefixtures("few_images")
def test_the_target_is_reached_at_9940_of_10000_and_not_below(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*given: object) -> Iterator[Event]:
        for epoch, correct in enumerate((9_939, 9_940, 9_951, 9_938), start=2):
            yield EpochTrained(epoch, 1, 1, 0.01)
            yield Evaluated(epoch, 10_000, correct, 0.02)
        yield Finished(5, 5)

    late = replace(REFERENCE.with_epochs(20), evaluate_from_epoch=2)
    monkeypatch.setitem(recipes.RECIPES, "late", late)
    monkeypatch.setattr("mnist_cnn.train.train", told)
    assert main(["--recipe", "late"]) == 0
    _, *epochs, outcome = capsys.readouterr().out.splitlines()
    assert epochs == [
        "epoch  2/20  loss 0.0100  accuracy 99.39 %",
        "epoch  3/20  loss 0.0100  accuracy 99.40 %  reaches the target",
        "epoch  4/20  loss 0.0100  accuracy 99.51 %  reaches the target",
        "epoch  5/20  loss 0.0100  accuracy 99.38 %",
    ]
    assert outcome == "99.4 % reached at epoch 3; final accuracy 99.38 %"


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_an_epoch_without_an_evaluation_has_its_line(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = replace(FAST.with_epochs(2), evaluate_from_epoch=2)
    monkeypatch.setitem(recipes.RECIPES, "late", late)
    assert main(["--recipe", "late"]) == 0
    _, first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1/2  loss ")
    assert "accuracy" not in first
    assert "accuracy" in second


@pytest.mark.usefixtures("few_images")
def test_a_device_that_cannot_train_here_is_refused(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Accelerate takes one where its package is installed."""
    other = SimpleNamespace(device=torch.device("hpu"), num_processes=1)
    monkeypatch.setattr("mnist_cnn.train_command.Accelerator", lambda **_: other)
    assert main(["--epochs", "1"]) == 2
    assert "hpu devices are not supported" in refused(capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_a_rank_whose_launcher_is_gone_names_the_variables(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, text in (RANK_OF_TWO | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}).items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("mnist_cnn.train_command._NOTICE_SECONDS", 0.0)
    monkeypatch.setattr("mnist_cnn.distributed.PROCESS_GROUP_TIMEOUT", timedelta(seconds=1))
    assert main(["--epochs", "1"]) == 2
    said = capsys.readouterr()
    waits, refusal = said.err.splitlines()
    assert waits.startswith("mnist_cnn: waits for the other processes; the variables RANK=0 and ")
    assert refusal.startswith("mnist_cnn: error: the 2 processes did not come together within ")
    assert refusal.endswith("MASTER_ADDR, MASTER_PORT")


@pytest.mark.slow
def test_ranks_of_one_machine_that_are_started_by_hand_meet_on_loopback(
    mnist_data_dir: Path, tmp_path: Path
) -> None:
    """Without torchrun nobody else keeps the place at which they meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    words = [sys.executable, "-m", "mnist_cnn", "train", "--recipe", "fast", "--epochs", "3"]

    def start(rank: int) -> subprocess.Popen[str]:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return subprocess.Popen(
            [*words, "--data-dir", str(mnist_data_dir)],
            cwd=tmp_path,
            env=environment(**CPU, **FEW, **RANK_OF_TWO | own, **address),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def listening(process: subprocess.Popen[str]) -> list[tuple[str, int]]:
        connections = psutil.Process(process.pid).net_connections("tcp")
        return [(*c.laddr,) for c in connections if c.status == psutil.CONN_LISTEN]

    with start(0) as first:
        while not (places := listening(first)):
            assert first.poll() is None
            time.sleep(0.02)
        assert places == [("127.0.0.1", port)]
        with start(1) as second:
            output, said = first.communicate()
            second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "on cpu x 2" in output


def test_a_port_that_is_taken_is_named(tmp_path: Path, mnist_data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        variables = RANK_OF_TWO | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        done = subprocess.run(
            [sys.executable, "-m", "mnist_cnn", "train", "--data-dir", str(mnist_data_dir)],
            cwd=tmp_path,
            env=environment(**CPU, **FEW, **variables),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"mnist_cnn: error: MASTER_PORT={port} cannot be listened on (")
