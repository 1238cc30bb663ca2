"""Writes a model file for others, with its card: behind `python -m mnist_cnn export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnist_cnn import console
from mnist_cnn.data import dataset
from mnist_cnn.disk import refusal_of
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable
from mnist_cnn.inference.export import folder as export_folder, hub
from mnist_cnn.inference.export.evaluation import Disagreement
from mnist_cnn.inference.weights import load_provenance, load_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What the command line asks for."""

    model: Path
    """File of the weights."""
    to: str
    """Name of a format."""
    output: Path | None
    """New folder; None for one beside the weights."""
    data_dir: Path | None
    """Folder of MNIST; None for the default folder."""
    repository: str | None
    """Repository to upload the folder to, as ``"user/name"``; None for none."""


def run_export(request: ExportRequest) -> int:
    """Export, report and upload.

    Returns:
        The exit status.

    Raises:
        UsageError: the weights or the data cannot be read, the folder exists, or the upload is not
            possible here.
    """
    model, repository = request.model, request.repository
    model_format = export_folder.parse_format(request.to)
    folder = request.output or model.with_name(f"{model.stem}-{model_format}")
    export_folder.check_new(folder)
    if repository is not None:
        try:
            hub.check_ready(repository)
        except UsageError as error:
            raise UsageError(f"--push-to-hub: {error}") from None
    network, provenance = load_weights(model), load_provenance(model)
    data = dataset.load(request.data_dir)
    try:
        exported = export_folder.export(network, provenance, model_format, folder, data)
    except OSError as error:
        console.complain(f"error: cannot write {folder}: {refusal_of(error)}")
        return console.EXIT_FAILED
    except Disagreement as error:
        console.complain(f"error: {folder} was not written: {error}")
        return console.EXIT_FAILED
    counts = exported.measured
    print(
        f"{printable(str(exported.model))}: {100 * counts.accuracy:.2f} % ({counts.correct:,} of "
        f"{counts.samples:,} test images), run by {exported.runtime}"
    )
    if repository is None:
        return 0
    try:
        print(f"uploaded to {printable(hub.push(folder, repository))}")
    except hub.UploadFailed as error:
        console.complain(
            f"error: not uploaded: {error}; to try again: hf upload {repository} {folder}"
        )
        return console.EXIT_FAILED
    return 0
