"""`python -m mnist_cnn`: bad input, summary, predict, and whole trainings as a program."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_cnn.__main__ import main
from mnist_cnn.inference.weights import save_weights
from mnist_cnn.model import MnistCnn
from tests.commands import ROOT
from tests.mnist_cnn.program import (
    CPU,
    FEW,
    RANK_OF_TWO,
    Output,
    environment,
    launch,
    refused,
)
from tests.stand_ins import FEWER_IMAGES, fault

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
def digit(tmp_path: Path) -> Path:
    """The documents' example."""
    return Path(shutil.copy(ROOT / "docs" / "digit.png", tmp_path))


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


# As a program


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
        # Before the loop heeds signals itself.
        pytest.param("mnist_cnn.train:train", "was not", marks=pytest.mark.thorough),
        pytest.param("mnist_cnn.train:evaluation_event", "was not", marks=pytest.mark.thorough),
        ("mnist_cnn.console:print_from_main|4", "was"),  # "saved"
    ],
)
def test_ctrl_c_is_one_line_at_any_moment(
    moment: str, fate: str, mnist_data_dir: Path, tmp_path: Path
) -> None:
    where, _, nth = moment.partition("|")
    interrupt = fault(f"*|{where}|{nth or 1}|signal=SIGINT")
    path = os.pathsep.join([interrupt["PYTHONPATH"], str(ROOT)])
    variables = CPU | FEWER_IMAGES | interrupt | {"PYTHONPATH": path, "MNIST_BENCH_GUARD": "none"}
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
    program = "import atexit; from mnist_cnn import rank; atexit.register(print, 'final'); "
    program += "print('done'); rank.exit_process(3)"
    completed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (3, printed, "")
