"""A table of the network's layers, read from the network itself.

The model is traced and run once; names, shapes, counts and the skip connection all come from that
run, so the table cannot disagree with the network.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from mnist_cnn.model import parameter_count

UNLISTED = (nn.Dropout, nn.Identity)
"""Modules without effect in an evaluation."""


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The square of input pixels that one output pixel depends on.

    Source: the recurrence of Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional
    Neural Networks", Distill 2019.
    """

    side: int = 1
    """Side of the square, in input pixels."""
    jump: int = 1
    """Distance between the centres of two neighbours' squares, in input pixels."""

    def through(self, kernel: int, dilation: int = 1, stride: int = 1) -> ReceptiveField:
        """The receptive field after a layer that moves a window over its input."""
        side = self.side + (kernel - 1) * dilation * self.jump
        return ReceptiveField(side, self.jump * stride)

    @staticmethod
    def joined(fields: Iterable[ReceptiveField]) -> ReceptiveField:
        """The receptive field where paths meet: of concentric squares, the largest."""
        fields = list(fields)
        assert len({field.jump for field in fields}) == 1, "paths of different strides meet"
        return max(fields, key=lambda field: field.side)


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the table."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Shape of the output for one image: channels, height, width."""
    parameters: int
    multiply_adds: int
    """Multiply-adds for one image; 0 for other layers than convolutions."""
    receptive_field: int
    """Side of the square of input pixels that one output pixel depends on."""


def layers(model: nn.Module, image_shape: tuple[int, int, int] = (1, 28, 28)) -> list[Layer]:
    """The model's layers, in the order in which they run."""
    training = model.training
    model.eval()
    walk = _Walk(fx.symbolic_trace(model))
    with torch.inference_mode():
        walk.run(torch.zeros(1, *image_shape))
    model.train(training)
    return walk.layers


class _Walk(fx.Interpreter):
    """Runs a traced network and notes a `Layer` for each step that has a row in the table."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.layers: list[Layer] = []
        self._fields: dict[fx.Node, ReceptiveField] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one step of the network, then note its layer."""
        output = super().run_node(n)
        if n.op == "output":
            return output
        kind = self._note(n, output)
        if kind:
            module = self._module(n)
            layer = Layer(
                name=str(n.target) if module else kind,
                kind=kind if module else "",
                shape=tuple(output.shape[1:]),
                parameters=parameter_count(module) if module else 0,
                multiply_adds=_multiply_adds(module, output),
                receptive_field=self._fields[n].side,
            )
            self.layers.append(layer)
        return output

    def _module(self, n: fx.Node) -> nn.Module | None:
        return self.submodules[str(n.target)] if n.op == "call_module" else None

    def _note(self, n: fx.Node, output: Tensor) -> str:
        """Note the receptive field of step `n`; return its kind of layer, or "" for no row."""
        inputs = n.all_input_nodes
        field = ReceptiveField()
        if inputs:
            field = ReceptiveField.joined(self._fields[node] for node in inputs)
        kind = ""
        match self._module(n) or n.target:
            case nn.Conv2d() as conv:
                kernel, dilation, stride = conv.kernel_size[0], conv.dilation[0], conv.stride[0]
                field = field.through(kernel, dilation, stride)
                kind = f"conv {kernel}x{kernel}"
                if dilation > 1:
                    kind += f" dilated {dilation}"
            case nn.MaxPool2d() as pool:
                kernel, stride = _side(pool.kernel_size), _side(pool.stride)
                field = field.through(kernel, stride=stride)
                kind = f"max-pool {kernel}x{kernel}"
            case nn.BatchNorm2d():
                kind = "batch norm"
            case "mean":
                field = field.through(self.env[inputs[0]].shape[-1])
                kind = "mean"
            case operator.getitem:
                field = field.through(1, stride=self.env[inputs[0]].shape[-1] // output.shape[-1])
            case operator.add:
                kind = "skip, added"
            case _:  # an element-wise step, such as ReLU
                assert all(self.env[node].shape == output.shape for node in inputs), n.target
        self._fields[n] = field
        return kind


def _side(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


def _multiply_adds(module: nn.Module | None, output: Tensor) -> int:
    """Multiply-adds of a convolution for one image: one per weight and output pixel."""
    if not isinstance(module, nn.Conv2d):
        return 0
    return module.weight.numel() * output.shape[-1] * output.shape[-2]


def training_flops(model: nn.Module) -> int:
    """Floating-point operations of a training step per image; a multiply-add counts as two.

    Forward, gradient of the weights, gradient of the inputs: three times the multiply-adds, except
    that the first convolution's input needs no gradient. As usual, convolutions only.
    """
    convolutions = [layer.multiply_adds for layer in layers(model) if layer.multiply_adds]
    return 2 * (3 * sum(convolutions) - convolutions[0])


def table(rows: list[Layer]) -> str:
    """The layers and their totals as lines of plain text, at most 80 columns wide."""
    cells: list[tuple[str, ...]] = [
        ("layer", "kind", "output", "parameters", "multiply-adds", "field")
    ]
    for row in rows:
        shape = "x".join(map(str, row.shape))
        counts = _count(row.parameters), _count(row.multiply_adds)
        cells.append((row.name, row.kind, shape, *counts, str(row.receptive_field)))
    totals = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    cells.append(("total", "", "", *map(_count, totals), ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, kind, *numbers in cells:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), kind.ljust(widths[1]), *padded]).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


FOOTNOTE = """\
output: channels x height x width, for one image
multiply-adds: of the convolutions, for one image
field: receptive field, the side, in pixels, of the square of the image on which
one output depends; it may extend beyond the image's edges"""
