"""The loop on devices that are not here: nothing is left behind on the CPU, nothing is float64.

The device is a stand-in, the loop, Accelerate and PyTorch's operators are the real ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen  # type: ignore[import-untyped]
import yaml
from accelerate import Accelerator

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine.capture import without_capture
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.evaluation import find_mistakes
from mnist_cnn.events import Event
from mnist_cnn.parity import compare_with_cpu
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE
from mnist_cnn.train import TrainingOptions, seeded_model, train
from tests.stand_ins.strict_device import accelerator_of, strict_device

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
RECIPES = {
    recipe.name: replace(recipe.with_epochs(3), memory_format="contiguous", batch_size=64)
    for recipe in (FAST, FAST_GPU, REFERENCE)
}

STEP_BY_STEP, CAPTURED = "step by step", "as captured"


def parts(mnist: MnistData) -> Split:
    return Split(
        mnist.train_images[:136],
        mnist.train_labels[:136],
        mnist.test_images[:96],
        mnist.test_labels[:96],
    )


def trained(name: str, how: str, accelerator: Accelerator, mnist: MnistData) -> list[Any]:
    """The events of a training, and the mistakes of its network."""
    context, data = TrainingContext(RECIPES[name], accelerator), parts(mnist)
    model = seeded_model(context.recipe, 0)
    graphs = GraphCache(context, without_capture) if how == CAPTURED else None
    events: list[Event] = list(train(model, context, data, 0, TrainingOptions(graphs=graphs)))
    images, labels = (
        tensor.to(accelerator.device) for tensor in (data.evaluation_images, data.evaluation_labels)
    )
    return [*events, find_mistakes(model, images, labels, context)]


WAYS = [("fast", STEP_BY_STEP), ("reference", STEP_BY_STEP)]
WAYS += [("fast-gpu", how) for how in (STEP_BY_STEP, CAPTURED)]


@pytest.fixture(scope="module")
def declared_operators() -> dict[str, Any]:
    """PyTorch's own list of its operators, by name with overload."""
    path = Path(torchgen.__path__[0]) / "packaged/ATen/native/native_functions.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    return {entry["func"].partition("(")[0]: entry for entry in entries}


def runs_on_mps(name: str, declared: dict[str, Any]) -> bool:
    """Whether an operator has code for MPS, or is made of others that need some."""
    entry = declared[name]
    if delegate := entry.get("structured_delegate"):
        entry = declared[delegate]
    keys = {key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")}
    return not keys or "MPS" in keys or any(key.startswith("Composite") for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how", "device"),
    [*((*way, "mps") for way in WAYS), ("fast", STEP_BY_STEP, "xpu")],
)
def test_all_work_is_on_the_device_by_its_operators_and_none_is_in_float64(
    name: str, how: str, device: str, mnist: MnistData, declared_operators: dict[str, Any]
) -> None:
    with strict_device(device) as strict:
        on_device = trained(name, how, accelerator_of(strict), mnist)
    assert "convolution_backward" in strict.operators
    missing = [name for name in strict.operators if not runs_on_mps(name, declared_operators)]
    assert missing == []
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    assert on_device == trained(name, how, accelerator, mnist)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), WAYS)
def test_so_is_the_comparison_before_a_benchmark(name: str, how: str, mnist: MnistData) -> None:
    with strict_device("xpu") as strict:
        context = TrainingContext(RECIPES[name], accelerator_of(strict))
        graphs = GraphCache(context, without_capture) if how == CAPTURED else None
        found = compare_with_cpu(context, parts(mnist), "fp32", graphs)
    assert found is not None
    assert found.problem is None
    assert "convolution_backward" in strict.operators


@pytest.mark.slow
def test_an_operator_that_mps_lacks_is_known(declared_operators: dict[str, Any]) -> None:
    assert not runs_on_mps("ormqr", declared_operators)


def test_the_device_is_strict() -> None:
    with strict_device("xpu") as strict:
        ours, others = torch.ones(3, device="xpu"), torch.ones(3)
        assert ours.device == strict.device
        with pytest.raises(RuntimeError, match="on two devices, xpu and cpu"):
            ours + others
        with pytest.raises(TypeError, match="xpu has no float64"):
            ours.double()
        assert torch.equal(ours.cpu() + others, 2 * others)
