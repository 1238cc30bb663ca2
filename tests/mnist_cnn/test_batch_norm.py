"""Batch norm in groups: one pass over a batch computes what a pass for each group computes."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_cnn.batch_norm import GroupedBatchNorm2d, group_batch_norm
from mnist_cnn.batches import Batch
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.engine.step import make_step
from mnist_cnn.model import GroupedNetwork, MnistCnn
from mnist_cnn.recipe import FAST
from mnist_cnn.train import seeded_model

FORMS = ["in turn", "at once"]
"""How a CPU normalises the groups, and how other devices and compiled code do."""
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CONVOLUTIONS = 7
"""Convolutions of the network; each has a batch norm."""


def use_form(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: form == "at once")


@dataclass
class Computed:
    """What a training step computes, to compare."""

    output: Tensor
    gradients: list[Tensor]
    statistics: list[Tensor]

    def differences(self, exact: Computed) -> list[float]:
        """Largest relative difference: of the output, the gradients and the statistics."""
        kinds = (
            ([self.output], [exact.output]),
            (self.gradients, exact.gradients),
            (self.statistics, exact.statistics),
        )
        return [max(map(relative, *pair)) for pair in kinds]


def relative(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def drawn_layer(channels: int) -> nn.BatchNorm2d:
    """An ordinary layer, none of whose values is neutral."""
    layer = nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            assert value is not None
            value.uniform_(0.5, 1.5)
    return layer


def layer_step(layer: nn.Module, images: Tensor, weights: Tensor, group: int) -> Computed:
    """What a layer computes that is called for one group of images after another."""
    images = images.clone().requires_grad_()  # keeps the layout
    output = torch.cat([layer(values) for values in images.split(group)])
    (output * weights).sum().backward()
    tensors = [images, *layer.parameters()]
    return Computed(
        output.detach(),
        [tensor.grad for tensor in tensors if tensor.grad is not None],
        list(layer.buffers()),
    )


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=50)
@given(
    count=st.integers(1, 50),
    group=st.integers(1, 20),
    layout=st.sampled_from(list(LAYOUTS)),
    offset=st.sampled_from([0.0, 1e3]),
)
def test_any_batch_in_any_groups_is_a_batch_a_group(
    form: str, count: int, group: int, layout: str, offset: float
) -> None:
    """Also where the last group is smaller, where the batch is, and far from a mean of zero."""
    torch.manual_seed(count * 100 + group)
    images = torch.randn(count, 5, 3, 4, dtype=torch.float64) + offset
    images = images.contiguous(memory_format=LAYOUTS[layout])
    weights = torch.randn_like(images)
    layer = drawn_layer(5)
    grouped = GroupedBatchNorm2d(deepcopy(layer), group)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_form(monkeypatch, form)
        ours = layer_step(grouped, images, weights, count)
    expected = layer_step(layer, images, weights, group)
    assert max(ours.differences(expected)) < 1e-9
    assert torch.equal(ours.statistics[-1], expected.statistics[-1]), "the number of batches"
    assert ours.output.is_contiguous(memory_format=LAYOUTS[layout])


def network_step(network: nn.Module, x: Tensor, y: Tensor, *, bf16: bool = False) -> Computed:
    """What a training step computes, with the losses as output."""
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with autocast:
        logits = network.train()(x)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    losses = F.cross_entropy(logits.to(dtype), y, reduction="none")
    losses.mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    statistics = torch.cat([b.flatten() for b in network.buffers() if b.is_floating_point()])
    return Computed(losses.detach(), [gradient], [statistics])


def grouped_network(network: MnistCnn, group: int) -> MnistCnn:
    network = deepcopy(network)
    group_batch_norm(network, group)
    return network


def batch(mnist: MnistData, count: int) -> tuple[Tensor, Tensor]:
    images = mnist.train_images[:count].unsqueeze(1).float().div(255).sub(0.1307).div(0.3081)
    return images, mnist.train_labels[:count].long()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("group", [16, 20])
def test_the_network_in_one_pass_is_the_network_a_pass_a_group(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch, form: str, layout: str, group: int
) -> None:
    """40 images: two and a half groups, or two."""
    use_form(monkeypatch, form)
    network = seeded_model(FAST, 0).to(memory_format=LAYOUTS[layout])
    x, y = batch(mnist, 40)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    reference = GroupedNetwork(deepcopy(network), group)
    exact = network_step(deepcopy(reference).double(), x.double(), y)
    ours = network_step(grouped_network(network, group), x, y)
    plain = network_step(reference, x, y)
    assert max(ours.differences(plain)[::2]) < 1e-5, "the losses and the statistics"
    # Where rounding decides which pixel is the largest of a pool, a gradient jumps; so do plain's.
    gradient, plains = ours.differences(exact)[1], plain.differences(exact)[1]
    assert gradient < max(1e-3, 1.25 * plains)
    ours_exact = network_step(grouped_network(network, group).double(), x.double(), y)
    assert max(ours_exact.differences(exact)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_bf16_it_is_as_near_float64_as_a_pass_a_group(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch, form: str, layout: str
) -> None:
    use_form(monkeypatch, form)
    network = seeded_model(FAST, 0).to(memory_format=LAYOUTS[layout])
    x, y = batch(mnist, 40)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    reference = GroupedNetwork(deepcopy(network), 16)
    exact = network_step(deepcopy(reference).double(), x.double(), y)
    ours = network_step(grouped_network(network, 16), x, y, bf16=True)
    plain = network_step(reference, x, y, bf16=True)
    for mine, plains in zip(ours.differences(exact), plain.differences(exact), strict=True):
        assert 0 < mine < 1.25 * plains


def test_evaluation_and_the_names_of_the_state_are_torchs() -> None:
    network = seeded_model(FAST, 0)
    grouped = grouped_network(network, 16)
    grouped.train()(torch.randn(40, 1, 28, 28))
    network.load_state_dict(grouped.state_dict())
    images = torch.randn(40, 1, 28, 28)
    assert torch.equal(grouped.eval()(images), network.eval()(images))


class _Calls(TorchDispatchMode):
    """Counts the operators that run, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_step_of_fast_is_one_pass(mnist: MnistData) -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    step = make_step(seeded_model(FAST, 0).train(), TrainingContext(FAST, accelerator))
    x, y = batch(mnist, FAST.batch_size)
    with _Calls() as calls:
        step(Batch(x, y, weight=1.0))
    assert calls.counts["convolution"] == CONVOLUTIONS
    assert calls.counts["convolution_backward"] == CONVOLUTIONS


def test_a_device_other_than_a_cpu_starts_one_batch_norm_a_layer() -> None:
    """A meta tensor has shapes alone, but takes the way that a GPU's tensors take."""
    network = grouped_network(MnistCnn(0.0), 16).to("meta").train()
    with _Calls() as calls:
        network(torch.empty(128, 1, 28, 28, device="meta")).sum().backward()
    norms = {name: n for name, n in calls.counts.items() if "batch_norm" in name}
    assert set(norms.values()) == {CONVOLUTIONS}
    assert len(norms) == 2, "forward and backward"


@pytest.mark.slow
def test_a_compiler_takes_the_network_as_one_graph(mnist: MnistData) -> None:
    network = seeded_model(FAST, 0)
    x, y = batch(mnist, 40)
    plain = network_step(GroupedNetwork(deepcopy(network), 16).double(), x.double(), y)
    grouped = grouped_network(network, 16).double()
    grouped.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    ours = network_step(grouped, x.double(), y)
    assert max(ours.differences(plain)) < 1e-9
