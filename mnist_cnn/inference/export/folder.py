"""A folder with the model file and its card: whole, or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from mnist_cnn.data.dataset import MnistData
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.inference.export import onnx_graph
from mnist_cnn.inference.export.card import Facts, Format, card
from mnist_cnn.inference.export.evaluation import Measured, RawPixels, measure
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.inference.weights import check_writable, load_weights, save_weights
from mnist_cnn.model import MnistCnn, parameter_count

CARD = "README.md"
"""What the Hub takes for the card."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how well it does."""

    model: Path
    measured: Measured
    runtime: str


def parse_format(text: str) -> Format:
    """The format asked for.

    Raises:
        UsageError: there is none of that name, or what it needs is not installed.
    """
    match text:
        case "onnx":
            onnx_graph.check_installed()
            return text
        case "safetensors":
            return text
    known = get_args(Format)
    raise UsageError(
        f"unknown format {text!r}{near_match(text, known)}; there are: {', '.join(known)}"
    )


def check_new(folder: Path) -> None:
    """Find out before the work whether `export` could make that folder.

    Raises:
        UsageError: it could not, or something is there already, which is never written over.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is there already; name a new folder with --output")
    check_writable(folder)


def export(
    network: MnistCnn, provenance: Provenance | None, to: Format, folder: Path, data: MnistData
) -> Exported:
    """Write the network in that format and measure what was written on every test image.

    Args:
        network: trained, on the CPU, ready to evaluate.
        provenance: of its weights, where known.
        to: the format.
        folder: where to; it must not be there yet.
        data: the test images.

    Raises:
        Disagreement: the file written does not compute what the network does.
        OSError: the folder cannot be written.
    """
    metadata = provenance.metadata() if provenance else {}
    trained = RawPixels(network)
    file = f"model.{to}"
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        path = temporary / file
        if to == "onnx":
            onnx_graph.write_graph(network, path, metadata)
            exported, runtime = onnx_graph.read_graph(path), onnx_graph.runtime()
        else:
            save_weights(network, path, metadata)
            exported, runtime = RawPixels(load_weights(path)), f"torch {torch.__version__}"
        measured = measure(exported, trained, data.test_images, data.test_labels)
        facts = Facts(
            format=to,
            file=file,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            parameters=parameter_count(network),
            measured=measured,
            runtime=runtime,
            provenance=provenance,
        )
        (temporary / CARD).write_text(card(facts), encoding="utf-8")
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder / file, measured, runtime)
