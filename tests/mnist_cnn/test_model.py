"""The network against a plain re-implementation, and its table against the network."""

from __future__ import annotations

import operator
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mnist_cnn.model import PARAMETERS, MnistCnn, Transition, build_model, parameter_count
from mnist_cnn.summary import FOOTNOTE, ReceptiveField, layers, table, training_flops


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(0)


def scattered(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with every weight and statistic drawn, so that none is neutral."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith(("running_var", "norm.weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, 0.2, generator=generator)
    return model


def by_the_text(weights: dict[str, Tensor], images: Tensor, training: bool) -> Tensor:
    """The seed text in plain functions, in its own order: BN, ReLU, pool."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.batch_norm(x, mean.clone(), variance.clone(), weight, bias, training=training)

    def block(x: Tensor, name: str, padding: int, dilation: int = 1) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.conv.weight"], padding=padding, dilation=dilation)
        return F.relu(norm(x, f"{name}.norm"))

    first = block(images, "stem", 1)
    x = block(first, "block1", 1)
    x = F.max_pool2d(block(x, "transition1", 0), 2)
    rows = torch.arange(0, 28, 2)
    x = x + first[:, :, rows][:, :, :, rows]
    x = block(x, "block2", 2, dilation=2)
    x = F.max_pool2d(block(x, "transition2", 0), 2)
    x = block(x, "block3", 1)
    x = F.relu(norm(F.conv2d(x, weights["classifier.weight"]), "classifier_norm"))
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def test_the_network_has_the_seeds_parameters() -> None:
    assert parameter_count(MnistCnn()) == PARAMETERS == 17_506
    assert parameter_count(build_model(0.0)) == PARAMETERS
    assert not any(module.bias is not None for module in convolutions(MnistCnn()))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_dropout_follows_each_of_the_four_blocks() -> None:
    drops = [(n, m.p) for n, m in MnistCnn(0.25).named_modules() if isinstance(m, nn.Dropout)]
    assert drops == [(f"{name}.dropout", 0.25) for name in ("stem", "block1", "block2", "block3")]
    assert not [m for m in MnistCnn(0.0).modules() if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_the_wiring_is_the_texts(training: bool) -> None:
    model = scattered(MnistCnn(dropout=0.0)).train(training).double()
    images = torch.randn(6, 1, 28, 28, dtype=torch.float64)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, _ in model.named_parameters():
        weights[name].requires_grad_()
    expected = by_the_text(weights, images, training)
    logits = model(images)
    assert logits.shape == (6, 10)
    assert torch.allclose(logits, expected, rtol=1e-12, atol=1e-12)
    labels = torch.arange(6)
    F.cross_entropy(expected, labels).backward()
    F.cross_entropy(logits, labels).backward()
    for name, parameter in model.named_parameters():
        gradient = weights[name].grad
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12), name


def test_pooling_before_relu_changes_no_bit() -> None:
    """Forward and backward, windows of equal values and of negative ones included."""
    transition = scattered(Transition(4, 3)).train()
    assert isinstance(transition, Transition)
    # Coarse values make ties frequent.
    images = torch.randn(8, 4, 12, 12).mul(2).round().requires_grad_()
    again = images.detach().clone().requires_grad_()
    pooled_first = transition(images)
    relu_first = F.max_pool2d(F.relu(transition.norm(transition.conv(again))), 2)
    assert torch.equal(pooled_first, relu_first)
    assert (pooled_first == 0).any()
    weights = torch.randn_like(pooled_first)
    (pooled_first * weights).sum().backward()
    (relu_first * weights).sum().backward()
    assert images.grad is not None
    assert again.grad is not None
    assert torch.equal(images.grad, again.grad)


def test_logits_are_never_negative() -> None:
    assert (scattered(MnistCnn()).eval()(torch.randn(20, 1, 28, 28)) >= 0).all()


def test_the_tables_totals() -> None:
    rows = layers(MnistCnn())
    assert sum(row.parameters for row in rows) == PARAMETERS
    # Every weight of a convolution is used once at each of its output pixels.
    large, middle, small = 162 + 5184 + 576, 5184 + 576, 5184 + 320
    by_hand = 28 * 28 * large + 14 * 14 * middle + 7 * 7 * small
    assert sum(row.multiply_adds for row in rows) == by_hand == 6_041_504


def test_the_tables_rows_are_the_networks() -> None:
    model = MnistCnn(dropout=0.1)
    rows = {row.name: row for row in layers(model)}
    assert rows["block2.conv"].kind == "conv 3x3 dilated 2"
    assert rows["block2.conv"].shape == (32, 14, 14)
    assert rows["mean"].shape == (10,)
    assert [name for name in rows if "dropout" in name] == []
    named = {name: parameter_count(module) for name, module in model.named_modules()}
    for row in rows.values():
        assert row.parameters == named.get(row.name, 0)
    assert model.training, "looking at a network must not change it"
    names = list(rows)
    assert operator.indexOf(names, "skip, added") == names.index("transition1.pool") + 1


def test_a_training_steps_operations_are_those_torch_counts() -> None:
    model = MnistCnn(dropout=0.0)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(3, 1, 28, 28)).sum().backward()
    assert counter.get_total_flops() == 3 * training_flops(model)


def test_the_table_fits_a_terminal() -> None:
    lines = [*table(layers(MnistCnn())).splitlines(), *FOOTNOTE.splitlines()]
    assert max(map(len, lines)) <= 80
    total = next(line for line in lines if line.startswith("total"))
    assert "17,506" in total
    assert "6,041,504" in total


def test_the_receptive_fields_recurrence() -> None:
    assert ReceptiveField().through(3) == ReceptiveField(3, 1)
    assert ReceptiveField(5, 1).through(2, stride=2) == ReceptiveField(6, 2)
    assert ReceptiveField(6, 2).through(3, dilation=2) == ReceptiveField(14, 2)
    assert ReceptiveField.joined([ReceptiveField(3, 2), ReceptiveField(6, 2)]) == ReceptiveField(
        6, 2
    )
    with pytest.raises(AssertionError, match="strides"):
        ReceptiveField.joined([ReceptiveField(3, 1), ReceptiveField(6, 2)])


@pytest.mark.parametrize(
    ("stage", "last", "unit"),
    [
        ("stem", "stem.conv", 14),
        ("block1", "block1.conv", 14),
        ("transition1", "transition1.pool", 7),
        ("block2", "block2.conv", 7),
        ("transition2", "transition2.pool", 3),
        ("block3", "block3.conv", 3),
    ],
)
def test_a_units_gradient_fills_its_receptive_field_and_no_more(
    stage: str, last: str, unit: int
) -> None:
    model = scattered(MnistCnn(dropout=0.0)).eval()
    seen: list[Tensor] = []
    model.get_submodule(stage).register_forward_hook(lambda *call: seen.append(call[-1]))
    images = torch.randn(64, 1, 28, 28, requires_grad=True)
    model(images)
    seen[0][:, :, unit, unit].sum().backward()
    assert images.grad is not None
    touched = (images.grad != 0).any(dim=0)[0]
    field = next(row.receptive_field for row in layers(model) if row.name == last)
    for axis in (0, 1):
        lines = touched.any(dim=axis).nonzero().flatten().tolist()
        assert lines[-1] - lines[0] + 1 == field
        assert lines[0] > 0, "a field cut by the image's edge shows nothing"
        assert lines[-1] < 27
        assert all(b - a <= 2 for a, b in pairwise(lines))
