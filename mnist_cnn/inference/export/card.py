"""The model card: a README.md that a person and the Hugging Face Hub can read.

Every number in it was measured or read from the weights' file; it says what is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mnist_cnn.inference.export.evaluation import Measured
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.recipe import REFERENCE

Format = Literal["onnx", "safetensors"]
NAME = "mnist-cnn"
DATASET = "ylecun/mnist"
"""Name of MNIST on the Hub."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The content of a card."""

    format: Format
    """Format of the model file."""
    file: str
    """Name of the model file, in the same folder as the card."""
    sha256: str
    """SHA-256 of that file, in hexadecimal."""
    parameters: int
    """Number of trained parameters of the network."""
    measured: Measured
    """Counts of that file over the test images."""
    runtime: str
    """Name and version of the runtime that ran the file for the measurement."""
    provenance: Provenance | None
    """How the weights were trained; None where not known."""


def card(facts: Facts) -> str:
    """The card: the Hub's metadata, then Markdown."""
    use = _USE_ONNX if facts.format == "onnx" else _USE_SAFETENSORS
    body = _BODY.format(
        use=use.format(file=facts.file, mean=REFERENCE.pixel_mean, dev=REFERENCE.pixel_deviation),
        training=_training(facts.provenance),
        evaluation=_evaluation(facts),
        parameters=f"{facts.parameters:,}",
        file=facts.file,
        sha256=facts.sha256,
    )
    return f"---\n{_front_matter(facts)}---\n\n{body}"


def _front_matter(facts: Facts) -> str:
    """The Hub's metadata as YAML, with the model index.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
    """
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type="image-classification",
        task_name="Image Classification",
        dataset_type=DATASET,
        dataset_name="MNIST",
        dataset_split="test",
        metric_type="accuracy",
        metric_name="Accuracy",
        metric_value=facts.measured.accuracy,
    )
    data = ModelCardData(
        license="mit",
        library_name="onnx" if facts.format == "onnx" else "pytorch",
        pipeline_tag="image-classification",
        tags=["mnist", "image-classification", facts.format],
        datasets=[DATASET],
        metrics=["accuracy"],
        model_name=NAME,
        eval_results=[result],
    )
    return f"{data.to_yaml()}\n"


def _training(provenance: Provenance | None) -> str:
    if provenance is None:
        return (
            "- data, recipe, epochs, seed and target: not known, for the weights' file did not\n"
            "  say (`python -m mnist_cnn train --save` records them)"
        )
    return "\n".join(
        [
            "- data: MNIST's training images, distorted at random",
            f"- recipe: `{provenance.recipe}` of mnist-bench, {_count(provenance.epochs, 'epoch')}",
            f"- seed: {provenance.seed}",
            f"- target: {100 * provenance.target_accuracy:g} %",
            f"- on: {provenance.device}, "
            f"{_count(provenance.processes, 'process', 'processes')}, "
            f"torch {provenance.torch_version}",
            "",
            "These are the weights after the last epoch: no epoch was chosen by its test accuracy.",
            "The file cannot tell whether somebody trained several times and kept the best, which",
            "would make the accuracy above too high.",
        ]
    )


def _evaluation(facts: Facts) -> str:
    counts = facts.measured
    lines = [
        f"- **accuracy: {_percent(counts.accuracy)}**, {counts.correct:,} of {counts.samples:,} "
        "MNIST test images",
        f"- measured on `{facts.file}` itself with {facts.runtime} on a CPU, when it was exported",
        f"- the trained network in PyTorch gives the same digit for {counts.agreeing:,} of "
        f"{counts.samples:,}",
        f"- standard error from counting {counts.samples:,} images: "
        f"{100 * counts.standard_error:.2f} points",
    ]
    if facts.provenance is not None:
        target = facts.provenance.target_accuracy
        outcome = "reached" if counts.accuracy >= target else "missed"
        lines.append(f"- the target of {100 * target:g} % is **{outcome}**")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


_BODY = """\
# MNIST digits with {parameters} parameters

A convolutional network that classifies the digit in a 28x28 picture. It is the network of
mnist-bench, a benchmark of training time, which also exported it.

## Evaluation

{evaluation}

## Use

{use}

## Training

- parameters: {parameters}
{training}

## Limits

- This is the result of one training: another seed gives a slightly higher or lower accuracy. The
  accuracy of a recipe is the mean over seeds.
- The network is for handwritten digits prepared as in MNIST: light ink on a black background, the
  digit within 20x20 pixels, its centre of mass in the middle of 28x28. Nothing was measured on
  other pictures; expect more errors.
- It always answers with a digit, also for a letter or an empty picture. Its probabilities are not
  calibrated.
- MNIST is small, clean and decades old: it does not show how well the network works on forms,
  cheques or other scripts.

## File

`{file}`, SHA-256 `{sha256}`. License: MIT.
"""

_USE_ONNX = """\
`digit.png` is a picture in MNIST's form: 28x28, light ink on black.

```python
import numpy as np
import onnxruntime
from PIL import Image

images = np.asarray(Image.open("digit.png").convert("L"), np.uint8)[None, None]
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {{"images": images}})
print(logits.argmax(1))
```

- input `images`: (batch, 1, 28, 28), uint8, 0 (background) to 255 (ink). Do not normalise: the
  graph does it, as (pixel / 255 - {mean}) / {dev}. Any batch size.
- output `logits`: (batch, 10), float32. The largest is the digit; softmax makes them
  probabilities.
- Batch norm is folded into the convolutions, so the graph's numbers differ from the weights."""

_USE_SAFETENSORS = """\
With mnist-bench installed and any picture of one digit:

```python
from pathlib import Path

from mnist_cnn.inference.predict import predict
from mnist_cnn.inference.weights import load_weights

probabilities = predict(load_weights(Path("{file}")), Path("digit.png"))
print(int(probabilities.argmax()))
```

- `predict` prepares the picture. The network itself, `mnist_cnn.model.MnistCnn`, takes
  (batch, 1, 28, 28), float32, each pixel from 0 (background) to 255 (ink) as
  (pixel / 255 - {mean}) / {dev}.
- It returns logits, (batch, 10), float32. The largest is the digit; softmax makes them
  probabilities."""
