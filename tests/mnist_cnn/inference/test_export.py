"""`python -m mnist_cnn export`: the files run elsewhere, and the card says what those files do."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from mnist_cnn.__main__ import main
from mnist_cnn.augment import normalise
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.inference.export import folder as exporting, hub
from mnist_cnn.inference.export.card import Format
from mnist_cnn.inference.weights import load_provenance, load_weights, save_weights
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import REFERENCE
from tests.commands import launch
from tests.factories import TRAINING
from tests.mnist_cnn.program import Output, refused

pytestmark = pytest.mark.slow  # a network is trained first

ROOT = Path(__file__).resolve().parents[3]
FORMATS: list[Format] = ["onnx", "safetensors"]
ONE_THREAD = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest,
    weights: Path,
    few_images: MnistData,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a model file and its card, in each format.

    A new one each time: a worker that takes tests from another may ask for a format twice.
    """
    own = tmp_path_factory.mktemp("exported") / weights.name
    shutil.copy(weights, own)
    assert main(["export", str(own), "--to", request.param]) == 0
    return own.with_name(f"model-{request.param}")


def model_file(folder: Path) -> Path:
    (path,) = folder.glob("model.*")
    return path


def predictions(folder: Path, images: Tensor) -> Tensor:
    """What the exported file says of (N, 28, 28) uint8 images, by code that is not ours."""
    path = model_file(folder)
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"images": images.unsqueeze(1).numpy()})
        return torch.from_numpy(logits).argmax(1)
    return in_pytorch(path, images)


@torch.inference_mode()
def in_pytorch(weights: Path, images: Tensor) -> Tensor:
    network = load_weights(weights)
    parts = (normalise(part, REFERENCE).unsqueeze(1) for part in images.split(500))
    return torch.cat([network(part).argmax(1) for part in parts])


def card_of(folder: Path) -> ModelCard:
    card = ModelCard.load(folder / "README.md")
    assert isinstance(card, ModelCard)
    return card


def metadata_of(folder: Path) -> ModelCardData:
    data = card_of(folder).data
    assert isinstance(data, ModelCardData)
    return data


def result_of(folder: Path) -> EvalResult:
    (result,) = metadata_of(folder).eval_results or []
    assert isinstance(result, EvalResult)
    return result


# What is written


def test_the_folder_holds_the_model_and_its_card_and_nothing_is_left_beside_it(
    exported: Path,
) -> None:
    names = {path.name for path in exported.iterdir()}
    assert names == {"README.md", f"model.{exported.name.removeprefix('model-')}"}
    beside = {path.name for path in exported.parent.iterdir()}
    assert beside <= {"model.safetensors", "model-onnx", "model-safetensors"}


def test_the_hub_reads_from_the_card_what_the_file_does(
    exported: Path, few_images: MnistData
) -> None:
    data = metadata_of(exported)
    assert data.license == "mit"
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["ylecun/mnist"]
    result = result_of(exported)
    assert result.task_type == "image-classification"
    assert (result.dataset_type, result.dataset_split) == ("ylecun/mnist", "test")
    assert result.metric_type == "accuracy"
    right = predictions(exported, few_images.test_images) == few_images.test_labels
    assert result.metric_value == right.sum().item() / 200
    text = card_of(exported).text
    assert f"{100 * result.metric_value:.2f} %" in text
    assert f"{right.sum().item()} of 200 MNIST test images" in text


def test_the_card_tells_of_the_training(exported: Path) -> None:
    text = card_of(exported).text
    assert "- parameters: 17,506\n" in text
    assert "- recipe: `fast` of mnist-bench, 24 epochs\n" in text
    assert "- seed: 7\n" in text
    assert "- target: 99.4 %\n" in text
    assert "- the target of 99.4 % is **missed**\n" in text
    assert "- on: cpu, 2 processes, torch 2.15.0+cpu\n" in text
    assert "## Limits\n" in text


def test_the_cards_example_runs_as_it_stands(
    exported: Path, few_images: MnistData, tmp_path: Path
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", card_of(exported).text, re.DOTALL)
    file = model_file(exported)
    (tmp_path / file.name).write_bytes(file.read_bytes())
    Image.fromarray(few_images.test_images[0].numpy()).save(tmp_path / "digit.png")
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"\[?\d\]?", done.stdout.strip())
    if file.suffix == ".onnx":  # `predict` centres the digit anew, the graph takes it as it is
        assert done.stdout.strip("[]\n") == str(
            predictions(exported, few_images.test_images[:1]).item()
        )


def test_the_checksum_is_the_files(exported: Path) -> None:
    checksum = hashlib.sha256(model_file(exported).read_bytes()).hexdigest()
    assert f"SHA-256 `{checksum}`" in card_of(exported).text


def test_nothing_of_this_machine_or_of_the_source_is_in_the_file(exported: Path) -> None:
    content = model_file(exported).read_bytes()
    for given_away in (str(ROOT), sys.prefix, ".py", "stack_trace"):
        assert given_away.encode() not in content


def test_the_same_weights_give_the_same_bytes(
    exported: Path, weights: Path, few_images: MnistData, tmp_path: Path
) -> None:
    to = model_file(exported).suffix[1:]
    assert main(["export", str(weights), "--to", to, "--output", str(tmp_path / "again")]) == 0
    for path in exported.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


# Each format


@pytest.fixture
def graph(weights: Path, few_images: MnistData) -> Path:
    folder = weights.with_name("model-onnx")
    if not folder.exists():
        assert main(["export", str(weights), "--to", "onnx"]) == 0
    return folder / "model.onnx"


def test_the_graph_is_valid_and_says_what_it_takes(graph: Path) -> None:
    onnx.checker.check_model(str(graph), full_check=True)
    model = onnx.load(str(graph))
    (opset,) = model.opset_import
    # ONNX 1.13 was the first to have them both: runtimes since then read the file.
    assert (model.ir_version, opset.version) == (8, 18)
    assert {entry.key: entry.value for entry in model.metadata_props} == TRAINING.metadata()
    assert "0 background to 255 ink" in model.doc_string
    (given_,), (answered,) = model.graph.input, model.graph.output
    assert given_.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert answered.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (given_, answered)
    ]
    assert shapes == [["batch", 1, 28, 28], ["batch", 10]]


@pytest.mark.parametrize("batch", [1, 2, 7, 128])
def test_the_graph_takes_any_batch(graph: Path, few_images: MnistData, batch: int) -> None:
    images = few_images.test_images[:batch]
    assert torch.equal(
        predictions(graph.parent, images),
        in_pytorch(graph.parents[1] / "model.safetensors", images),
    )


def test_images_already_scaled_are_refused_and_not_misread(graph: Path) -> None:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="uint8"):
        session.run(None, {"images": np.zeros((1, 1, 28, 28), np.float32)})


def test_safetensors_come_back_bit_for_bit_with_their_provenance(
    weights: Path, few_images: MnistData, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(weights), "--to", "safetensors", "--output", str(out)]) == 0
    before = load_weights(weights).state_dict()
    after = load_weights(out / "model.safetensors").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_provenance(out / "model.safetensors") == TRAINING
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"


# Provenance


def test_weights_that_say_nothing_of_their_training_have_a_card_that_says_so(
    few_images: MnistData, tmp_path: Path
) -> None:
    save_weights(MnistCnn(), tmp_path / "m.safetensors")
    assert main(["export", str(tmp_path / "m.safetensors"), "--to", "safetensors"]) == 0
    text = card_of(tmp_path / "m-safetensors").text
    assert "recipe, epochs, seed and target: not known" in text
    assert "after the last epoch" not in text
    assert "the target of" not in text


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"recipe": "`\n---\n<script>alert(1)</script>"}, "no valid recipe of the training"),
        ({"seed": "٣"}, "no valid seed of the training"),
        ({"target_accuracy": "nan"}, "no valid target_accuracy of the training"),
        ({"epochs": ""}, "no valid epochs of the training"),
    ],
    ids=["markup", "digits", "nan", "empty"],
)
def test_metadata_that_cannot_be_so_are_refused(
    changed: dict[str, str], complaint: str, tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(MnistCnn(), path, TRAINING.metadata() | changed)
    assert main(["export", str(path), "--to", "safetensors"]) == 2
    message = refused(capsys)
    assert complaint in message
    assert str(path) in message
    assert "script" not in message
    assert list(tmp_path.iterdir()) == [path]


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "absent.safetensors"], "Missing option '--to'"),
        (["export", "absent.safetensors", "--to", "onxx"], "'onxx' (did you mean 'onnx'?)"),
        (["export", "absent.safetensors", "--to", "onnx"], "cannot read absent.safetensors"),
        (["export", "full", "--to", "onnx"], "cannot read full: it is a folder"),
        (["export", "a", "--to", "onnx", "--output", "full"], "full is there already"),
        (["export", "a", "--to", "onnx", "--output", "no/where"], "cannot write no/where"),
        (["export", "a", "--to", "safetensors", "--push-to-hub", "a/b/c"], "--push-to-hub"),
        (["export", "a", "--to", "safetensors", "--push-to-hub", "../x"], "--push-to-hub"),
        (
            ["export", "a", "--to", "safetensors", "--push-to-hub", "us/er"],
            "there is no Hugging Face token; set HF_TOKEN or run: hf auth login",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("no_token")
def test_bad_input_is_one_line_and_exit_2(
    words: list[str], message: str, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    assert main(words) == 2
    assert message in refused(capsys)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "README.md"]
    assert (tmp_path / "full" / "README.md").read_text() == "mine"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_it_says_how_to_get_it(
    package: str, weights: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / "out"
    assert main(["export", str(weights), "--to", "onnx", "--output", str(out)]) == 2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "pip install onnx onnxruntime onnxscript" in refused(capsys)
    assert any(
        line.startswith(package + ">") for line in project["optional-dependencies"]["export"]
    )
    assert not out.exists()


# What fails


@pytest.mark.parametrize(("full_from", "status"), [("the start", 2), ("the export", 1)])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    full_from: str,
    status: int,
    weights: Path,
    few_images: MnistData,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sync(_: int) -> None:
        if full_from == "the start" or list(tmp_path.glob(".out.*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    out = tmp_path / "out"
    assert main(["export", str(weights), "--to", "safetensors", "--output", str(out)]) == status
    assert f"mnist_cnn: error: cannot write {out}: No space left on device" in refused(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs the name of a descriptor")
def test_what_is_exported_is_on_the_disk_before_it_has_its_name(
    weights: Path, few_images: MnistData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file, their folder, and then the folder's name."""
    synced: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    for model_format in FORMATS:
        out = tmp_path / model_format
        assert main(["export", str(weights), "--to", model_format, "--output", str(out)]) == 0
        of_files = "".join(name for name in synced if name.endswith(".tmp"))
        assert f".model.{model_format}." in of_files
        assert ".README.md." in of_files
        folder, parent = synced[-2:]
        assert folder.startswith(f".{model_format}.")
        assert parent == tmp_path.name


def test_a_terminal_obeys_nothing_of_a_folders_name_or_the_hubs_answer(
    weights: Path,
    few_images: MnistData,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evil = "x\x1b]0;owned\x07\u202ey"
    monkeypatch.setattr(hub, "check_ready", lambda _: None)
    monkeypatch.setattr(hub, "push", lambda *_: f"https://example.org/{evil}")
    words = ["export", str(weights), "--to", "safetensors", "--output", str(tmp_path / evil)]
    assert main([*words, "--push-to-hub", "user/name"]) == 0
    model, uploaded = capsys.readouterr().out.splitlines()
    assert "/xy/model.safetensors: " in model
    assert uploaded == "uploaded to https://example.org/xy"


KILLED_BEFORE_THE_CARD = """
import os, signal, sys
from dataclasses import replace
from mnist_cnn.__main__ import main
from mnist_cnn.data import dataset
from mnist_cnn.inference.export import folder

whole = dataset.load()
few = replace(whole, test_images=whole.test_images[:200], test_labels=whole.test_labels[:200])
dataset.load = lambda _: few
folder.card = lambda facts: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="has no SIGKILL")
def test_the_next_export_removes_what_a_killed_one_left(
    weights: Path, few_images: MnistData, tmp_path: Path
) -> None:
    arguments = ["export", str(weights), "--to", "safetensors", "--output", str(tmp_path / "out")]
    killed = launch([sys.executable, "-c", KILLED_BEFORE_THE_CARD, *arguments])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    os.utime(left, (1, 1))
    assert main(arguments) == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "model.safetensors",
    }


@pytest.mark.parametrize("factor", [1.01, torch.nan])
def test_a_file_that_computes_something_else_is_not_handed_on(
    factor: float,
    weights: Path,
    few_images: MnistData,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scaled(path: Path) -> MnistCnn:
        network = load_weights(path)
        with torch.no_grad():
            network.stem.conv.weight.mul_(factor)
        return network

    monkeypatch.setattr(exporting, "load_weights", scaled)
    out = tmp_path / "out"
    assert main(["export", str(weights), "--to", "safetensors", "--output", str(out)]) == 1
    assert "was not written: the exported file's logits differ" in refused(capsys)
    assert list(tmp_path.iterdir()) == []


# For real


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_trained_network_predicts_the_same_10_000_digits_everywhere(
    mnist: MnistData, mnist_data_dir: Path, tmp_path: Path
) -> None:
    """A short real training, then both files over the whole test set."""

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "mnist_cnn", *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | ONE_THREAD,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    data = ("--data-dir", mnist_data_dir)
    trained = ("--recipe", "fast", "--epochs", "3", "--seed", "5", "--target-accuracy", "90")
    run("train", *trained, *data, "--save", "digits.safetensors")
    wanted = in_pytorch(tmp_path / "digits.safetensors", mnist.test_images)
    right = int((wanted == mnist.test_labels).sum())
    assert right > 9_000
    for to in FORMATS:
        said = run("export", "digits.safetensors", "--to", to, *data)
        folder = tmp_path / f"digits-{to}"
        assert torch.equal(predictions(folder, mnist.test_images), wanted)
        assert result_of(folder).metric_value == right / 10_000
        text = card_of(folder).text
        assert f"{right:,} of 10,000 MNIST test images" in text
        assert "gives the same digit for 10,000 of 10,000" in text
        assert "- recipe: `fast` of mnist-bench, 3 epochs\n" in text
        assert "- seed: 5\n" in text
        assert "- the target of 90 % is **reached**\n" in text
        assert f"({right:,} of 10,000 test images)" in said
