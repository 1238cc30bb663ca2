"""`mnist_cnn export --push-to-hub`: a double of the Hub's server, the client is the real one."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from mnist_cnn.__main__ import main
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.inference.export import hub as uploading
from tests.mnist_cnn.program import Output, refused
from tests.stand_ins.servers import trickling_server


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert (out / "model.safetensors").is_file()


@pytest.mark.slow
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


@pytest.mark.slow
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
