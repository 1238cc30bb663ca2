"""Weights to a file and back, and the files that are refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from mnist_cnn.errors import UsageError
from mnist_cnn.inference.weights import (
    check_writable,
    load_provenance,
    load_weights,
    save_weights,
)
from mnist_cnn.model import MnistCnn
from tests.interruptions import interrupted_everywhere


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_round_trip_changes_no_bit(path: Path) -> None:
    model = MnistCnn()
    model.train()(torch.randn(4, 1, 28, 28))  # batch norm's statistics are no longer the first
    save_weights(model, path)
    loaded = load_weights(path)
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("letters", range(8))
def test_the_tensors_are_aligned_for_readers_that_map_the_file(path: Path, letters: int) -> None:
    """As the safetensors library writes it, however long the metadata are."""
    save_weights(MnistCnn(), path, {"note": "x" * letters})
    header_bytes = int.from_bytes(path.read_bytes()[:8], "little")
    assert header_bytes % 8 == 0


def test_any_memory_layout_is_saved(path: Path) -> None:
    model = MnistCnn()
    before = model.block1.conv.weight.detach().clone()
    save_weights(model.to(memory_format=torch.channels_last), path)
    assert torch.equal(load_weights(path).block1.conv.weight, before)


def test_a_saved_file_has_the_permissions_of_any_other(path: Path) -> None:
    save_weights(MnistCnn(), path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path.write_text("the old one")

    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)):
        save_weights(MnistCnn(), path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "the old one"


Tensors = dict[str, Tensor]


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def with_other(name: str, value: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: value}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without("block2.conv.weight"), "has no tensor 'block2.conv.weight'"),
        (
            with_other("block1.conv.weight", torch.zeros(32, 16, 3, 3)),
            "tensor 'block1.conv.weight' is of shape 32x16x3x3, not 32x18x3x3",
        ),
        (
            with_other("stem.norm.num_batches_tracked", torch.zeros(2).long()),
            "'stem.norm.num_batches_tracked' is of shape 2, not a single number",
        ),
        (with_other("extra.weight", torch.zeros(1)), "it has an extra tensor 'extra.weight'"),
        (
            with_other("stem.norm.bias", torch.full((18,), torch.nan)),
            "'stem.norm.bias' holds values that are not finite",
        ),
        (
            with_other("stem.norm.bias", torch.zeros(18, dtype=torch.int32)),
            r"'stem.norm.bias' holds torch.int32 numbers",
        ),
        (lambda tensors: {}, "has no tensor 'stem.conv.weight'"),
    ],
    ids=["missing", "shape", "scalar", "extra", "nan", "integers", "empty"],
)
def test_another_networks_weights_are_refused(
    path: Path, change: Callable[[Tensors], Tensors], complaint: str
) -> None:
    path.write_bytes(safetensors.torch.save(change(dict(MnistCnn().state_dict()))))
    with pytest.raises(UsageError, match=complaint) as refusal:
        load_weights(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_first_tensor_that_differs_is_named(path: Path) -> None:
    tensors = MnistCnn().state_dict()
    for name in ("block3.conv.weight", "block1.conv.weight", "classifier.weight"):
        tensors[name] = torch.zeros(3)
    path.write_bytes(safetensors.torch.save(tensors))
    with pytest.raises(UsageError, match=r"'block1\.conv\.weight'"):
        load_weights(path)


def test_half_precision_weights_are_taken(path: Path) -> None:
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in MnistCnn().state_dict().items()
    }
    path.write_bytes(safetensors.torch.save(halves))
    assert load_weights(path).stem.conv.weight.dtype == torch.float32


def whole(path: Path) -> bytes:
    save_weights(MnistCnn(), path)
    return path.read_bytes()


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(path: Path, length: int) -> None:
    path.write_bytes(whole(path)[:length])
    with pytest.raises(UsageError, match="is not a safetensors file"):
        load_weights(path)


def test_files_of_other_kinds_are_refused(path: Path) -> None:
    path.write_text("These are not the weights you are looking for.\n" * 9)
    with pytest.raises(UsageError, match="is not a safetensors file"):
        load_weights(path)
    torch.save(MnistCnn().state_dict(), path)
    with pytest.raises(UsageError, match="is not a safetensors file"):
        load_weights(path)
    with pytest.raises(UsageError, match="it is a folder"):
        load_weights(path.parent)
    with pytest.raises(UsageError, match="No such file"):
        load_weights(path.with_name("absent"))


def test_where_nothing_can_be_written_is_known_beforehand(path: Path) -> None:
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(UsageError, match="it is a folder"):
        check_writable(path.parent)
    with pytest.raises(UsageError, match=r"cannot write .*absent.x: No such file or directory"):
        check_writable(path.parent / "absent" / "x")
    # Its temporary name is short enough; its own is not.
    with pytest.raises(UsageError, match="File name too long"):
        check_writable(path.with_name("ß" * 130))
    path.touch()
    with pytest.raises(UsageError, match="Not a directory"):
        check_writable(path / "x")


# What was just opened is then closed by a destructor, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_check_leaves_nothing_wherever_it_is_interrupted(tmp_path: Path) -> None:
    for moment in interrupted_everywhere(lambda: check_writable(tmp_path / "weights")):
        assert not list(tmp_path.iterdir()), moment


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_weights_are_read_from_files_of_their_size_only(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        load_weights(tmp_path / "pipe")
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match="it is larger than 16,777,216 bytes"):
        load_weights(path)
    with pytest.raises(UsageError, match="File name too long"):
        load_weights(tmp_path / ("n" * 300))


def test_variances_below_zero_are_refused(path: Path) -> None:
    model = MnistCnn()
    for name, values in model.named_buffers():
        if name.endswith("running_var"):
            values.fill_(-1)
    save_weights(model, path)
    with pytest.raises(UsageError, match="holds variances below zero"):
        load_weights(path)


def test_weights_are_not_written_through_a_link(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(UsageError, match="it is a link"):
        check_writable(path)
    with pytest.raises(OSError, match="it is a link"):
        save_weights(MnistCnn(), path)
    assert victim.read_text() == "precious"


@pytest.mark.slow
@settings(max_examples=200, derandomize=True)
@given(
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    length=st.integers(0, 3000) | st.none(),
)
def test_changed_weights_are_refused_in_one_line_or_loaded(
    changes: list[tuple[int, int]], length: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    torch.manual_seed(0)
    save_weights(MnistCnn(), path)
    content = bytearray(path.read_bytes()[:length])
    for place, value in changes:
        if place < len(content):
            content[place] = value
    path.write_bytes(content)
    reason = ""
    try:
        load_weights(path)
        load_provenance(path)
    except UsageError as error:
        reason = str(error)
    assert "\n" not in reason


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The network's weights with another header."""
    data = whole(path)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    return path


def test_metadata_may_be_null(path: Path) -> None:
    with_header(path, lambda header: header.update(__metadata__=None))
    load_weights(path)
    assert load_provenance(path) is None


@pytest.mark.parametrize("kind", ["C64", "U64", "BOOL", "F8_E4M3", "F8_E8M0"])
@pytest.mark.filterwarnings("error")
def test_numbers_that_torch_cannot_check_are_refused(kind: str, path: Path) -> None:
    name = next(name for name, value in MnistCnn().state_dict().items() if not value.dim())

    def change(header: dict[str, Any]) -> None:
        names = (name,) if kind in ("C64", "U64") else header.keys() - {"__metadata__"}
        for changed in names:
            header[changed]["dtype"] = kind

    with pytest.raises(UsageError, match=r"tensor|safetensors"):
        load_weights(with_header(path, change))
