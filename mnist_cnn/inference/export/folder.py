"""Exports a folder with a model file and its card, completely or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from mnist_cnn.data.dataset import MnistData
from mnist_cnn.disk import sync_folder, temporary_ending, with_cleanup, write_new_file
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.inference.export import onnx_graph
from mnist_cnn.inference.export.card import Facts, Format, card
from mnist_cnn.inference.export.evaluation import Measured, RawPixels, measure
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.inference.weights import check_writable, load_weights, save_weights
from mnist_cnn.leftovers import FOLDER_LOCK, lock_folder, sweep_files
from mnist_cnn.model import MnistCnn, parameter_count

CARD = "README.md"
"""File that the Hub shows as the card."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported file and its measured accuracy."""

    model: Path
    """Path of the model file."""
    measured: Measured
    """Counts of that file over the test images."""
    runtime: str
    """Name and version of the runtime that ran it."""


def parse_format(text: str) -> Format:
    """Parse the name of a format.

    Raises:
        UsageError: there is no such format, or its packages are not installed.
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
    """Check, before the export, that `export` can create that folder.

    Raises:
        UsageError: it cannot, or the folder exists; nothing is ever overwritten.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already; name a new folder")
    check_writable(folder)


def export(
    network: MnistCnn,
    provenance: Provenance | None,
    model_format: Format,
    folder: Path,
    data: MnistData,
) -> Exported:
    """Write the network in that format, and measure the written file on every test image.

    Args:
        network: trained, on the CPU, ready to evaluate.
        provenance: how its weights were trained; None where not known.
        model_format: format of the file.
        folder: new folder.
        data: the test images.

    Raises:
        Disagreement: the written file does not compute what the network computes.
        OSError: the folder cannot be written.
    """
    sweep_files(folder.parent)
    temporary = folder.with_name(f".{folder.name[:48]}{temporary_ending()}")

    def write() -> Exported:
        temporary.mkdir()
        lock = lock_folder(temporary)  # if this process is killed, a later one may remove it
        try:
            facts = _write_model(network, provenance, model_format, temporary, data)
            write_new_file(temporary / CARD, card(facts).encode())
            (temporary / FOLDER_LOCK).unlink(missing_ok=True)
            sync_folder(temporary)
            temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            if lock >= 0:
                os.close(lock)
        return Exported(folder / facts.file, facts.measured, facts.runtime)

    return with_cleanup(write, lambda: shutil.rmtree(temporary, ignore_errors=True))


def _write_model(
    network: MnistCnn,
    provenance: Provenance | None,
    model_format: Format,
    folder: Path,
    data: MnistData,
) -> Facts:
    """Write the network's file, and read it again to measure it."""
    metadata = provenance.metadata() if provenance else {}
    path = folder / f"model.{model_format}"
    if model_format == "onnx":
        onnx_graph.write_graph(network, path, metadata)
        exported, runtime = onnx_graph.read_graph(path), onnx_graph.runtime()
    else:
        save_weights(network, path, metadata)
        exported, runtime = RawPixels(load_weights(path)), f"torch {torch.__version__}"
    return Facts(
        format=model_format,
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        parameters=parameter_count(network),
        measured=measure(exported, RawPixels(network), data.test_images, data.test_labels),
        runtime=runtime,
        provenance=provenance,
    )
