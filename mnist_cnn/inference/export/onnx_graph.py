"""The network as an ONNX graph, written by PyTorch and run by ONNX Runtime.

The graph takes MNIST's own bytes. A float input would also accept images scaled to 0..1 or not
normalised, and would silently classify them wrongly; a uint8 input has one meaning.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.disk import write_new_file
from mnist_cnn.errors import UsageError
from mnist_cnn.inference.export.evaluation import Classifier, RawPixels
from mnist_cnn.model import MnistCnn

OPSET = 18
"""The exporter's own version, so nothing is converted; ONNX Runtime reads it since 1.14 (2023)."""
INPUT, OUTPUT = "images", "logits"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_installed() -> None:
    """Check that the packages for this format are installed.

    Raises:
        UsageError: they are not; the message says how to install them.
    """
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        raise UsageError(f"the onnx format needs more packages: pip install {' '.join(PACKAGES)}")


def write_graph(network: MnistCnn, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the graph: images (batch, 1, 28, 28), uint8, to logits (batch, 10), float32.

    Args:
        network: trained, on the CPU.
        path: file to write.
        metadata: key-value pairs to store in the file.

    Raises:
        OSError: the file cannot be written.
    """
    import onnx

    program = torch.onnx.export(
        RawPixels(network).eval(),
        # Two images: the exporter would take a batch of one for a constant.
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8),),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    # The exporter's metadata contain paths and source lines of this machine.
    for element in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        element.ClearField("metadata_props")
    graph.name = "mnist_cnn"
    # The exporter writes the newest version of the file format, which older runtimes refuse.
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    model.doc_string = (
        f"{INPUT}: (batch, 1, 28, 28), uint8, 0 background to 255 ink, as in MNIST's files; "
        f"normalised inside. {OUTPUT}: (batch, 10), float32; the largest is the digit."
    )
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    write_new_file(path, model.SerializeToString(deterministic=True))


def read_graph(path: Path) -> Classifier:
    """A classifier that runs the graph in that file with ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns about GPUs that it does not find
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )

    def classify(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return classify


def runtime() -> str:
    """Name and version of the runtime."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"
