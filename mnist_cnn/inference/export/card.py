"""The model card: a README.md that a person and the Hugging Face Hub can read.

Every number in it was measured or read from the weights' file; what is not known is said to be.
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
"""MNIST's name on the Hub."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card tells."""

    format: Format
    file: str
    """Name of the model file, which lies beside the card."""
    sha256: str
    """Of that file, in hexadecimal."""
    parameters: int
    """Trained parameters of the network."""
    measured: Measured
    """Of that file."""
    runtime: str
    """What ran the file to measure it, with its version."""
    provenance: Provenance | None
    """Of the weights, where known."""


def card(facts: Facts) -> str:
    """The card, Markdown with the Hub's metadata in front."""
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
    """The Hub's metadata, as YAML, model-index and all.

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
    of = provenance
    return "\n".join(
        [
            "- data: MNIST's training images, distorted at random",
            f"- recipe: `{of.recipe}` of mnist-bench, {_count(of.epochs, 'epoch')}",
            f"- seed: {of.seed}",
            f"- target: {100 * of.target_accuracy:g} %",
            f"- on: {of.device}, {_count(of.processes, 'process', 'processes')}, "
            f"torch {of.torch_version}",
            "",
            "These are the weights after the last epoch: no epoch was chosen by its test accuracy.",
            "Whether somebody trained several times and kept the best, which would flatter the",
            "accuracy above, the file cannot tell.",
        ]
    )


def _evaluation(facts: Facts) -> str:
    got = facts.measured
    lines = [
        f"- **accuracy: {_percent(got.accuracy)}**, {got.correct:,} of {got.samples:,} MNIST test "
        "images",
        f"- measured on `{facts.file}` itself with {facts.runtime} on a CPU, when it was exported",
        f"- the trained network in PyTorch gives the same digit for {got.agreeing:,} of "
        f"{got.samples:,}",
        f"- standard error from counting {got.samples:,} images: "
        f"{100 * got.standard_error:.2f} points",
    ]
    if facts.provenance is not None:
        target = facts.provenance.target_accuracy
        word = "reached" if got.accuracy >= target else "missed"
        lines.append(f"- the target of {100 * target:g} % is **{word}**")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


_BODY = """\
# MNIST digits with {parameters} parameters

A convolutional network that says which digit a 28x28 picture shows. It is the network of
mnist-bench, a benchmark of how long training takes, and was exported with it.

## Evaluation

{evaluation}

## Use

{use}

## Training

- parameters: {parameters}
{training}

## Limits

- One training, one number: another seed ends a little higher or lower. What a recipe reaches is
  the mean over seeds.
- It knows handwritten digits prepared as MNIST's are: light ink on a black ground, the digit
  within 20x20 pixels, its centre of mass in the middle of 28x28. Of other pictures nothing was
  measured; expect more mistakes.
- It always answers with a digit, for a letter or an empty picture too. How sure it says it is was
  not calibrated.
- MNIST is small, clean and decades old: do not conclude from it how the network does on forms,
  cheques or other scripts.

## File

`{file}`, SHA-256 `{sha256}`. License: MIT.
"""

_USE_ONNX = """\
`digit.png` here is a picture as MNIST's: 28x28, light ink on black.

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
  graph does, by (pixel / 255 - {mean}) / {dev}. Any batch size.
- output `logits`: (batch, 10), float32. The largest is the digit; softmax makes them
  probabilities.
- Batch norm is folded into the convolutions, so the graph's numbers are not the weights'."""

_USE_SAFETENSORS = """\
With mnist-bench installed, and any picture of one digit:

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
