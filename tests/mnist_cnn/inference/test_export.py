"""`python -m mnist_cnn export`: the files run elsewhere, and the card says what those files do."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from mnist_cnn.__main__ import main
from mnist_cnn.augment import normalise
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.inference.export import folder as exporting, hub as uploading
from mnist_cnn.inference.export.card import Format
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.inference.weights import load_provenance, load_weights, save_weights
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import REFERENCE
from tests.stand_ins.servers import trickling_server

ROOT = Path(__file__).resolve().parents[3]
FORMATS: list[Format] = ["onnx", "safetensors"]
ONE_THREAD = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
TRAINING = Provenance("fast", 24, 7, 0.994, "cpu", 2, "2.15.0+cpu")

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def few_images(mnist: MnistData) -> Iterator[MnistData]:
    """Measured on 200 test images, where the number does not matter."""
    few = replace(mnist, test_images=mnist.test_images[:200], test_labels=mnist.test_labels[:200])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_cnn.data.dataset.load", lambda folder: few)
        yield few


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, said to be trained."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(3)
    model = MnistCnn()
    model.train()(torch.randn(64, 1, 28, 28))
    save_weights(model, path, TRAINING.metadata())
    return path


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


def refused(output: Output) -> str:
    """What a refused command said: one line on stderr, nothing else."""
    said = output.readouterr()
    assert said.out == ""
    assert said.err.startswith("mnist_cnn: error: ")
    assert said.err.count("\n") == 1
    return said.err


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
    assert f"pip install '{project['name']}[export]'" in refused(capsys)
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


# The Hub: a double of its server stands in for the network, the client is the real one.


class Hub(HTTPServer):
    """As much of the Hub's interface as an upload of small files uses."""

    def __init__(self, refuses: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.refuses = refuses
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and authorization of every request."""
        self.files: dict[str, bytes] = {}
        """What was committed."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(("POST", self.path, self.headers.get("Authorization", "")))
        if self.server.refuses:
            return self._say(403, {"error": "you have no rights to write here"})
        hub = self.server.address
        if self.path == "/api/repos/create":
            return self._say(200, {"url": f"{hub}/some/model"})
        if self.path == "/api/validate-yaml":
            return self._say(200, {"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._say(200, {"files": files})
        if self.path.endswith("/commit/main"):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.files[entry["value"]["path"]] = content
            made = {"commitUrl": f"{hub}/some/model/commit/{'0' * 40}", "commitOid": "0" * 40}
            return self._say(200, made)
        return self._say(404, {"error": self.path})

    def do_GET(self) -> None:
        self.server.asked.append(("GET", self.path, self.headers.get("Authorization", "")))
        self._say(200, {"id": "some/model", "sha": "0" * 40, "siblings": []})

    def _say(self, status: int, answer: Mapping[str, object]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    # What the client would keep in the user's home; not every version of it has all of these.
    for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH", "AGENT_HARNESSES_PATH"):
        monkeypatch.setattr(constants, name, str(home / name), raising=False)
        monkeypatch.setenv(name, str(home / name))
    # For the child process that uploads.
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub_of(no_token: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], Hub]]:
    """Starts the double and points the client at it, with a token."""
    started: list[Hub] = []
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def start(refuses: bool) -> Hub:
        hub = Hub(refuses)
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        started.append(hub)
        return hub

    yield start
    for hub in started:
        hub.shutdown()
        hub.server_close()


def push(weights: Path, out: Path) -> int:
    words = ["export", str(weights), "--to", "safetensors", "--output", str(out)]
    return main([*words, "--push-to-hub", "some/model"])


def test_an_upload_that_was_asked_for_sends_the_folder(
    hub_of: Callable[[bool], Hub],
    weights: Path,
    few_images: MnistData,
    tmp_path: Path,
    capsys: Output,
) -> None:
    server = hub_of(False)
    out = tmp_path / "out"
    assert push(weights, out) == 0
    assert f"uploaded to {server.address}/some/model\n" in capsys.readouterr().out
    assert server.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert server.files.keys() == {"README.md", "model.safetensors"}
    ours = [sent for _, path, sent in server.asked if "some/model" in path or "create" in path]
    assert len(ours) >= 3
    assert set(ours) == {"Bearer hf_test"}


def test_a_refused_upload_is_one_line_and_exit_1_and_keeps_the_folder(
    hub_of: Callable[[bool], Hub],
    weights: Path,
    few_images: MnistData,
    tmp_path: Path,
    capsys: Output,
) -> None:
    hub_of(True)
    out = tmp_path / "out"
    assert push(weights, out) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("mnist_cnn: error: not uploaded: ")
    assert "403" in complaint
    assert "hf_test" not in complaint
    assert complaint.endswith(f"to try again: hf upload some/model {out}\n")
    assert complaint.count("\n") == 1
    assert model_file(out).is_file()


def test_a_hub_out_of_reach_is_one_line_and_exit_1(
    hub_of: Callable[[bool], Hub],
    weights: Path,
    few_images: MnistData,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert push(weights, tmp_path / "out") == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("mnist_cnn: error: not uploaded: ")
    assert complaint.count("\n") == 1


def test_a_hub_that_answers_too_slowly_is_left(
    hub_of: Callable[[bool], Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then: no limit of a single read would ever end it."""
    hub_of(False)
    with trickling_server() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(uploading.UploadFailed, match=r"it was not done within 4 s"):
            uploading.push(tmp_path, "some/model", timeout_seconds=4)


def test_a_hub_switched_off_is_refused(
    hub_of: Callable[[bool], Hub],
    weights: Path,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert push(weights, tmp_path / "out") == 2
    assert "HF_HUB_OFFLINE is set" in refused(capsys)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_sent_unless_asked_for(
    hub_of: Callable[[bool], Hub], weights: Path, few_images: MnistData, tmp_path: Path
) -> None:
    server = hub_of(False)
    out = str(tmp_path / "out")
    assert main(["export", str(weights), "--to", "safetensors", "--output", out]) == 0
    assert server.asked == []


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
