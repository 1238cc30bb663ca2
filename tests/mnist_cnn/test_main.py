"""`python -m mnist_cnn` through its command line; whole epochs and real ranks where marked slow."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from mnist_cnn import recipe as recipes, train as training
from mnist_cnn.__main__ import main
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.events import EpochTrained, Evaluated, Event, Finished
from mnist_cnn.inference.weights import load_provenance, load_weights, save_weights
from mnist_cnn.model import MnistCnn
from mnist_cnn.process import ENDING_SIGNALS, end_on_signals
from mnist_cnn.recipe import FAST, REFERENCE
from tests.stand_ins import FEW_IMAGES, fault

ROOT = Path(__file__).resolve().parents[2]
LEFT_BY_LAUNCHERS = (
    "ACCELERATE_",
    "MASTER_",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_",
    "OMP_",
    "TORCHELASTIC",
)
CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
FEW = {"PYTHONPATH": os.pathsep.join([FEW_IMAGES["PYTHONPATH"], str(ROOT)])}

RANK_OF_TWO = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}

Output = pytest.CaptureFixture[str]


def environment(**added: str) -> dict[str, str]:
    """Without what a launcher around pytest would have left."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(LEFT_BY_LAUNCHERS)}
    return kept | {"PYTHONPATH": str(ROOT)} | added


def launch(*words: str | Path, cwd: Path, **added: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m` and these words."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        cwd=cwd,
        env=environment(**added),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # a launcher would leave its ranks behind
            raise
    return process.returncode, said, complained


def refused(output: Output) -> str:
    """What a refused command said: one line on stderr, nothing else."""
    said = output.readouterr()
    assert said.out == ""
    assert said.err.startswith("mnist_cnn: error: ")
    assert said.err.count("\n") == 1
    return said.err


# Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["--no-such-option"], "--no-such-option"),
        (["train", "--epochs", "many"], "--epochs"),
        (["--epochs", "0"], "epochs must be at least 1, not 0"),
        (["--recipe", "refrence"], "unknown recipe 'refrence' (did you mean 'reference'?)"),
        (["--pipeline", "lodaer"], "unknown pipeline 'lodaer' (did you mean 'loader'?)"),
        (["--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["--target-accuracy", "0"], "not '0'"),
        (["--target-accuracy", "101"], "not '101'"),
        (["--target-accuracy", "abc"], "a percentage such as 99.4 or a fraction such as 0.994"),
        (["--save", "absent/model.safetensors"], "cannot write absent/model.safetensors"),
        (["--save", "."], "it is a folder"),
        (["predict"], "Missing argument"),
        (["predict", "absent.safetensors", "digit.png"], "cannot read absent.safetensors"),
        (["predict", __file__, "digit.png"], "test_main.py is not a safetensors file"),
        (["summary", "twice"], "twice"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], message: str, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in refused(capsys)
    assert list(tmp_path.iterdir()) == []


def test_missing_data_is_one_line(capsys: Output, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert main(["--data-dir", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in refused(capsys)


# summary, predict


def test_summary(capsys: Output) -> None:
    assert main(["summary"]) == 0
    said = capsys.readouterr()
    assert "17,506" in said.out
    assert "6,041,504" in said.out
    assert said.out.isascii()
    assert said.err == ""


def test_help_needs_no_torch() -> None:
    code = "import sys; from mnist_cnn.__main__ import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(name in done.stdout for name in ("train", "predict", "summary", "export"))
    imported = done.stdout.split()
    assert not {"torch", "accelerate", "numpy", "rich"} & set(imported)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_weights(MnistCnn(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def digit(mnist: MnistData, tmp_path: Path) -> Path:
    Image.fromarray(mnist.test_images[0].numpy()).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def printed(encoding: str, *words: str | Path) -> str:
    """What a command prints where stdout has that encoding."""
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding, write_through=True))
        assert main([*map(str, words)]) == 0
        return buffer.getvalue().decode(encoding)


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("ascii", "#")])
def test_predict_draws_what_the_terminal_can(
    weights: Path, digit: Path, encoding: str, block: str
) -> None:
    first, *bars = printed(encoding, "predict", weights, digit).splitlines()
    assert first.startswith(f"{digit}: ")
    assert first.endswith(" %)")
    assert [bar.split()[0] for bar in bars] == list("0123456789")
    assert block in "".join(bars)


def test_a_bad_picture_among_good_ones_hides_none(
    weights: Path, digit: Path, capsys: Output
) -> None:
    text = digit.with_name("text.png")
    text.write_text("not a picture")
    assert main(["predict", str(weights), str(digit), str(text), str(digit)]) == 2
    said = capsys.readouterr()
    assert said.out.count(f"{digit}: ") == 2
    assert said.err == (
        f"mnist_cnn: error: {text} is not a PNG or JPEG picture: save it as PNG or JPEG, for "
        "example from a viewer's export menu\n"
    )


def test_a_name_that_cannot_be_printed_ends_nothing(weights: Path, digit: Path) -> None:
    renamed = digit.rename(digit.with_name(os.fsdecode(b"digit \xff\xc3\xa9.png")))
    assert "digit \\udcff\\xe9.png: " in printed("ascii", "predict", weights, renamed)


# train, on a few images


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
    assert "the folder is gone: make it again" in said.err
    vanishing.mkdir()
    subprocess.run(["sh", "-c", said.err.strip().rpartition("; then: ")[2]], check=True)
    assert load_provenance(path) is not None


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


# train, as programs


@pytest.mark.slow
def test_a_short_training_under_accelerate_launch_then_predict(
    mnist_data_dir: Path, digit: Path, tmp_path: Path
) -> None:
    launcher = ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m"]
    # Guessing one digit for all images would reach the target.
    words = ["--recipe", "fast", "--epochs", "3", "--target-accuracy", "5"]
    where = ["--data-dir", str(mnist_data_dir), "--save", "model.safetensors"]
    status, said, complained = launch(
        *launcher, "mnist_cnn", *words, *where, cwd=tmp_path, **CPU | FEW
    )
    assert status == 0, complained
    assert "5 % reached at epoch 3" in said
    _, said, _ = launch("mnist_cnn", "predict", "model.safetensors", digit.name, cwd=tmp_path)
    assert re.match(r"digit\.png: \d \(", said)


@pytest.mark.slow
def test_two_ranks_speak_and_save_once(mnist_data_dir: Path, tmp_path: Path) -> None:
    ranks = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["--recipe", "fast", "--epochs", "3", "--data-dir", str(mnist_data_dir), "--save", "m"]
    status, said, complained = launch(
        *ranks, "-m", "mnist_cnn", "train", *words, cwd=tmp_path, **CPU | FEW
    )
    assert status == 0, complained
    head, *_, epoch, outcome, saved = said.splitlines()
    assert head.endswith("on cpu x 2")
    assert float(epoch.split("accuracy ")[1].split()[0]) > 0
    assert "final accuracy" in outcome
    assert saved == "saved m"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="each rank would find a GPU")
def test_ranks_that_do_not_know_of_each_other_are_refused(tmp_path: Path) -> None:
    ranks = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    status, said, complained = launch(*ranks, "-m", "mnist_cnn", "train", cwd=tmp_path, **FEW)
    assert status != 0
    assert said == ""
    assert complained.count("2 processes were started but each trains alone") == 1
    assert "torchrun --standalone --nproc_per_node 2 -m mnist_cnn train" in complained


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "fate"),
    [
        ("mnist_cnn.train:train", "was not"),  # before the loop heeds signals itself
        ("mnist_cnn.train:evaluation_event", "was not"),
        ("mnist_cnn.console:print_from_main|4", "was"),  # "saved"
    ],
)
def test_ctrl_c_is_one_line_at_any_moment(
    moment: str, fate: str, mnist_data_dir: Path, tmp_path: Path
) -> None:
    where, _, nth = moment.partition("|")
    interrupt = fault(f"*|{where}|{nth or 1}|signal=SIGINT")
    path = os.pathsep.join([interrupt["PYTHONPATH"], str(ROOT)])
    variables = CPU | interrupt | {"PYTHONPATH": path, "MNIST_BENCH_GUARD": "none"}
    words = ["--data-dir", str(mnist_data_dir), "--save", "m", "--recipe", "fast", "--epochs", "1"]
    status, _, complained = launch("mnist_cnn", *words, cwd=tmp_path, **variables)
    assert (status, complained) == (130, f"mnist_cnn: interrupted; m {fate} written\n")
    assert [entry.name for entry in tmp_path.iterdir()] == (["m"] if fate == "was" else [])


@pytest.mark.slow
def test_a_real_ctrl_c(mnist_data_dir: Path, tmp_path: Path) -> None:
    words = ["--data-dir", str(mnist_data_dir), "--save", "model.safetensors", "--recipe", "fast"]
    words += ["--epochs", "5000"]  # it cannot be over before the signal comes
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn", *words],
        cwd=tmp_path,
        env=environment(**CPU | FEW),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("recipe fast")
        process.send_signal(signal.SIGINT)
        # At the latest after the first epoch, where the interrupt itself was lost in an import.
        _, complaint = process.communicate()
    assert process.returncode == 130
    assert complaint == "mnist_cnn: interrupted; model.safetensors was not written\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("variables", "printed"), [({}, "done\nfinal\n"), (RANK_OF_TWO, "done\n")])
def test_a_rank_ends_without_finalization(variables: dict[str, str], printed: str) -> None:
    """Threads of gloo that are still there may abort the process while it is finalized."""
    program = "import atexit; from mnist_cnn import console; atexit.register(print, 'final'); "
    program += "print('done'); console.exit_process(3)"
    completed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (3, printed, "")
