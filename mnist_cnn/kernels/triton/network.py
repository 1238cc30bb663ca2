"""Launches the kernels of `mnist_cnn.kernels.triton.kernels` for whole steps and evaluations."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from triton.runtime.jit import JITFunction

from mnist_cnn.augment import COLUMNS, SIDE
from mnist_cnn.context import TrainingContext
from mnist_cnn.kernels.buffers import DeviceBuffers
from mnist_cnn.kernels.triton import kernels
from mnist_cnn.kernels.triton.shapes import Shapes
from mnist_cnn.model import MnistCnn

EVALUATION_BATCH = 2_500
"""Number of images in a forward pass of an evaluation."""
_ARITHMETIC = {"enable_fp_fusion": True}
"""Multiplications and additions are fused, as measured: by default only before Triton 3.10."""
BLOCK = 128
"""Parameters that one program updates; a layer's weights, scales and shifts start at multiples."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Offsets of a convolution and its batch norm in the flat tensors."""

    weight: int
    affine: int
    end: int
    sums: int
    inputs: int
    outputs: int
    taps: int
    side: int


def _layers() -> list[_Layer]:
    """The layers in the network's order, their parameters one after the other."""
    layers = []
    start = sums = 0
    for inputs, outputs, taps, side in (
        (1, 18, 9, SIDE),
        (18, 32, 9, SIDE),
        (32, 18, 1, SIDE),
        (18, 32, 9, SIDE // 2),
        (32, 18, 1, SIDE // 2),
        (18, 32, 9, SIDE // 4),
        (32, 10, 1, SIDE // 4),
    ):
        affine = start + -(-inputs * outputs * taps // BLOCK) * BLOCK
        end = affine + -(-2 * outputs // BLOCK) * BLOCK
        layers.append(_Layer(start, affine, end, sums, inputs, outputs, taps, side))
        start, sums = end, sums + 2 * outputs
    return layers


LAYERS = _layers()
PARAMETERS = LAYERS[-1].end
"""Length of the flat weights, with padding."""
STATISTICS = LAYERS[-1].sums + 2 * LAYERS[-1].outputs
"""Length of the flat running statistics."""


class TritonProgram:
    """Trains and evaluates with the kernels; see `mnist_cnn.engine.graph.StepProgram`.

    Args:
        context: a recipe for which `unsupported_reason` has none, a device and a precision.
        buffers: tensors that it reads and writes.
        shapes: launch parameters of the kernels.
    """

    def __init__(self, context: TrainingContext, buffers: DeviceBuffers, shapes: Shapes) -> None:
        recipe, accelerator = context.recipe, context.accelerator
        device = buffers.images.device
        kind = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        self._recipe, self._buffers, self._shapes = recipe, buffers, shapes
        self._units = _multiprocessors(device)
        self._run = _launch
        self._weights = torch.zeros(PARAMETERS, device=device)
        self._kept = torch.zeros(PARAMETERS, dtype=kind, device=device)
        """The weights in the precision of the products."""
        self._velocities = torch.zeros_like(self._weights)
        self._running = torch.zeros(STATISTICS, device=device)
        averages = recipe.average_decay > 0
        self._average = torch.zeros_like(self._weights) if averages else self._weights
        self._average_kept = torch.zeros_like(self._kept) if averages else self._kept
        self._average_running = torch.zeros_like(self._running) if averages else self._running
        self._averages = averages
        self._gradients = torch.zeros(PARAMETERS, dtype=torch.int64, device=device)
        counts = [_rows_of(layer, shapes) * self._units for layer in LAYERS]
        self._rows = torch.zeros(max(counts), PARAMETERS, device=device)
        """Gradients of the weights, one row per program."""
        row_counts = torch.zeros(PARAMETERS // BLOCK, dtype=torch.int64)
        for layer, count in zip(LAYERS, counts, strict=True):
            row_counts[layer.weight // BLOCK : layer.affine // BLOCK] = count
        self._row_counts = row_counts.to(device)
        self._sums = torch.zeros(STATISTICS, dtype=torch.int64, device=device)
        self._totals = torch.zeros(2, dtype=torch.int64, device=device)
        self._starts = torch.tensor([layer.sums for layer in LAYERS], device=device)
        self._widths = torch.tensor([layer.outputs for layer in LAYERS], device=device)
        self._counts: dict[int, Tensor] = {}

        images = max(recipe.batch_size, min(EVALUATION_BATCH, len(buffers.evaluation_images)))
        whole, half, quarter = (images * (SIDE // n) ** 2 for n in (1, 2, 4))

        def zeros(rows: int, columns: int, dtype: torch.dtype = kind) -> Tensor:
            return torch.zeros(rows, columns, dtype=dtype, device=device)

        self._pixels = zeros(whole, 1)
        self._stem = zeros(whole, 24)
        self._y1, self._y2 = zeros(whole, 32), zeros(whole, 24)
        self._x1, self._y3, self._y4 = zeros(half, 24), zeros(half, 32), zeros(half, 24)
        self._x2, self._y5, self._y6 = zeros(quarter, 24), zeros(quarter, 32), zeros(quarter, 16)
        batch = recipe.batch_size
        whole, half, quarter = (batch * (SIDE // n) ** 2 for n in (1, 2, 4))
        self._slopes = zeros(batch, 16, torch.float32)
        self._dz0, self._dz1, self._dz2 = zeros(whole, 24), zeros(whole, 32), zeros(whole, 24)
        self._dx1, self._dz3, self._dz4 = zeros(half, 24), zeros(half, 32), zeros(half, 24)
        self._dz5 = zeros(quarter, 32)
        self._dy1, self._dy3, self._dy5 = zeros(whole, 32), zeros(half, 32), zeros(quarter, 32)
        # Nothing is compiled by Triton's interpreter.
        self.compiled = self._compile() if isinstance(kernels.update, JITFunction) else []
        """The kernels as Triton has compiled them."""

    def _compile(self) -> list[Any]:
        """Compile the kernels of a step and an evaluation, several at a time.

        Compiled one after the other at their first launch, they take several times as long.
        """
        launches: dict[tuple[object, ...], Callable[[], object]] = {}

        def gather(kernel: Any, grid: tuple[int, ...], *given: Any, **options: Any) -> None:
            # Triton compiles different code for these.
            key = [
                value % 16 == 0 if isinstance(value, int) else value.data_ptr() % 16 == 0
                for value in given
                if isinstance(value, int | Tensor)
            ]
            launches[(kernel, *key, *options.items())] = partial(
                kernel.warmup, *given, grid=grid, **_ARITHMETIC, **options
            )

        self._run = gather
        self.train(self._recipe.batch_size)
        self.evaluate()
        self._run = _launch
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda launch: launch(), launches.values()))

    def load(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        for layer, (convolution, norm) in zip(LAYERS, _modules(model), strict=True):
            weight = convolution.weight.detach()
            flat = weight.permute(2, 3, 1, 0).reshape(-1)
            self._weights[layer.weight : layer.weight + flat.numel()].copy_(flat)
            _halves(self._weights, layer.affine, layer.outputs, norm.weight, norm.bias)
            _copy_statistics(self._running, layer, norm)
        self._kept.copy_(self._weights)
        for tensor in (self._velocities, self._gradients, self._sums):
            tensor.zero_()
        # A run that diverged has left NaN, which no weight of the average takes out.
        self._average.copy_(self._weights)
        self._average_running.copy_(self._running)

    @torch.no_grad()
    def store(self, model: MnistCnn, *, averaged: bool = True) -> None:
        """See `StepProgram`."""
        weights = self._average if averaged else self._weights
        running = self._average_running if averaged else self._running
        for layer, (convolution, norm) in zip(LAYERS, _modules(model), strict=True):
            weight = convolution.weight
            outputs, inputs, height, width = weight.shape
            flat = weights[layer.weight : layer.weight + weight.numel()]
            weight.copy_(flat.view(height, width, inputs, outputs).permute(3, 2, 0, 1))
            end = layer.affine + layer.outputs
            norm.weight.copy_(weights[layer.affine : end])
            norm.bias.copy_(weights[end : end + layer.outputs])
            assert norm.running_mean is not None
            assert norm.running_var is not None
            end = layer.sums + layer.outputs
            norm.running_mean.copy_(running[layer.sums : end])
            norm.running_var.copy_(running[end : end + layer.outputs])

    @torch.no_grad()
    def take_statistics(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        for layer, (_, norm) in zip(LAYERS, _modules(model), strict=True):
            _copy_statistics(self._average_running, layer, norm)

    def train(self, size: int) -> None:
        """See `StepProgram`."""
        buffers, recipe = self._buffers, self._recipe
        scale = 1 / (255 * recipe.pixel_deviation)
        offset = recipe.pixel_mean / recipe.pixel_deviation
        self._run(
            kernels.distort, (size,),
            buffers.images, buffers.order, buffers.distortions, buffers.position, buffers.step,
            self._pixels, scale, offset, SIDE=SIDE, COLUMNS=COLUMNS, BLOCK=1024,
        )  # fmt: skip
        self._forward(size, self._kept, self._weights, self._running, train=True)
        self._backward(size)
        if size not in self._counts:
            self._counts[size] = torch.tensor(
                [size * layer.side**2 for layer in LAYERS], device=self._sums.device
            )
        self._run(
            kernels.update, (PARAMETERS // BLOCK + len(LAYERS) + 1,),
            self._weights, self._velocities, self._gradients, self._rows, self._row_counts,
            self._kept, self._average,
            self._running, self._sums, self._average_running, self._starts, self._widths,
            self._counts[size], buffers.learning_rates, buffers.average_weights, buffers.step,
            buffers.position, size, PARAMETERS, recipe.momentum, recipe.weight_decay,
            AVERAGE=self._averages, LAYERS=len(LAYERS), TOGETHER=32, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip

    def evaluate(self) -> None:
        """See `StepProgram`."""
        buffers, recipe = self._buffers, self._recipe
        scale = 1 / (255 * recipe.pixel_deviation)
        offset = recipe.pixel_mean / recipe.pixel_deviation
        self._average_kept.copy_(self._average)
        self._totals.zero_()
        for start in range(0, len(buffers.evaluation_images), EVALUATION_BATCH):
            images = buffers.evaluation_images[start : start + EVALUATION_BATCH]
            count = images.numel()
            self._run(
                kernels.normalise,
                (-(-count // 1024),),
                images,
                self._pixels,
                count,
                scale,
                offset,
                BLOCK=1024,
            )
            self._forward(
                len(images), self._average_kept, self._average, self._average_running, train=False
            )
            layer = LAYERS[6]
            self._run(
            kernels.tally, (len(images),),
                self._y6, self._average_running[layer.sums :], self._average[layer.affine :],
                buffers.evaluation_labels[start:], self._totals, len(images),
                PIXELS=layer.side**2, BP=64, num_warps=1,
            )  # fmt: skip
        buffers.totals[0].copy_(self._totals[0])
        buffers.totals[1].copy_(self._totals[1] / kernels.OUTPUT_UNIT.value)
        buffers.totals[2].fill_(len(buffers.evaluation_images))

    def _forward(
        self, size: int, kept: Tensor, weights: Tensor, running: Tensor, *, train: bool
    ) -> None:
        whole, half, quarter = (size * (SIDE // n) ** 2 for n in (1, 2, 4))

        def of(index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            layer = LAYERS[index]
            return (
                kept[layer.weight :], self._sums[layer.sums :], running[layer.sums :],
                weights[layer.affine :],
            )  # fmt: skip

        w, sums, stats, affine = of(0)
        if train:
            self._run(
                kernels.stem_sums,
                self._grid("stem_sums", SIDE, whole),
                self._pixels,
                w,
                sums,
                whole,
                SIDE=SIDE,
                **self._options("stem_sums", SIDE),
            )
        self._run(
            kernels.stem, self._grid("stem", SIDE, whole),
            self._pixels, w, sums, stats, affine, self._stem, whole, SIDE=SIDE, TRAIN=train,
            **self._options("stem", SIDE),
        )  # fmt: skip
        self._block(1, self._stem, self._y1, whole, kept, 1, train)
        self._pointwise(2, of(1), self._y1, self._y2, whole, kept, train)
        self._pool(of(2), self._y2, self._stem, self._x1, half, SIDE // 2, train)
        self._block(3, self._x1, self._y3, half, kept, 2, train)
        self._pointwise(4, of(3), self._y3, self._y4, half, kept, train)
        self._pool(of(4), self._y4, None, self._x2, quarter, SIDE // 4, train)
        self._block(5, self._x2, self._y5, quarter, kept, 1, train)
        self._pointwise(6, of(5), self._y5, self._y6, quarter, kept, train)

    def _block(
        self, index: int, source: Tensor, target: Tensor, count: int, kept: Tensor, dilation: int,
        train: bool,
    ) -> None:  # fmt: skip
        layer = LAYERS[index]
        self._run(
            kernels.block, self._grid("block", layer.side, count),
            source, kept[layer.weight :], target, self._sums[layer.sums :], count, SIDE=layer.side,
            DILATION=dilation, TRAIN=train, **self._options("block", layer.side),
        )  # fmt: skip

    def _pointwise(
        self, index: int, before: tuple[Tensor, Tensor, Tensor, Tensor], source: Tensor,
        target: Tensor, count: int, kept: Tensor, train: bool,
    ) -> None:  # fmt: skip
        layer = LAYERS[index]
        self._run(
            kernels.pointwise, self._grid("pointwise", layer.side, count),
            source, *before[1:], kept[layer.weight :], target, self._sums[layer.sums :], count,
            OUTPUTS=layer.outputs, STRIDE=_stride(layer), BO=16 if layer.outputs <= 16 else 32,
            TRAIN=train, **self._options("pointwise", layer.side),
        )  # fmt: skip

    def _pool(
        self, before: tuple[Tensor, Tensor, Tensor, Tensor], source: Tensor, skip: Tensor | None,
        target: Tensor, count: int, side: int, train: bool,
    ) -> None:  # fmt: skip
        self._run(
            kernels.pool, self._grid("pool", side, count),
            source, *before[1:], source if skip is None else skip, target, count, SIDE=side,
            SKIP=skip is not None, TRAIN=train, **self._options("pool", side),
        )  # fmt: skip

    def _backward(self, size: int) -> None:
        whole, half, quarter = (size * (SIDE // n) ** 2 for n in (1, 2, 4))
        buffers = self._buffers
        classifier = LAYERS[6]
        self._run(
            kernels.loss, (min(size, 4 * self._units),),
            self._y6, self._sums[classifier.sums :], self._weights[classifier.affine :],
            buffers.order, buffers.labels, buffers.position, buffers.losses, self._slopes,
            self._gradients[classifier.affine :], size, self._recipe.label_smoothing,
            PIXELS=classifier.side**2, BP=64, num_warps=1,
        )  # fmt: skip
        self._pointwise_back(6, self._slopes, self._y6, self._y5, self._dz5, quarter)
        self._block_back(5, self._dz5, self._y5, self._x2, self._dy5, quarter, 1)
        self._pooled_back(5, self._dy5, self._y4, self._dz4, None, quarter, 1)
        self._pointwise_back(4, self._dz4, self._y4, self._y3, self._dz3, half)
        self._block_back(3, self._dz3, self._y3, self._x1, self._dy3, half, 2)
        self._pooled_back(3, self._dy3, self._y2, self._dz2, self._dx1, half, 2)
        self._pointwise_back(2, self._dz2, self._y2, self._y1, self._dz1, whole)
        self._block_back(1, self._dz1, self._y1, self._stem, self._dy1, whole, 1)
        stem, block = LAYERS[0], LAYERS[1]
        self._run(
            kernels.stem_input_back, self._grid("stem_input_back", SIDE, whole),
            self._dy1, self._kept[block.weight :], self._dx1, self._stem, self._pixels,
            self._kept[stem.weight :], self._sums[stem.sums :], self._weights[stem.affine :],
            self._gradients[stem.affine :], self._dz0, whole, SIDE=SIDE,
            **self._options("stem_input_back", SIDE),
        )  # fmt: skip
        self._run(
            kernels.stem_weight_back, self._rows_grid("stem_weight_back", SIDE),
            self._dz0, self._pixels, self._kept[stem.weight :], self._sums[stem.sums :],
            self._weights[stem.affine :], self._gradients[stem.affine :],
            self._rows[0, stem.weight :], whole, WIDTH=PARAMETERS, SIDE=SIDE,
            **self._options("stem_weight_back", SIDE),
        )  # fmt: skip

    def _pointwise_back(
        self, index: int, dz: Tensor, y: Tensor, source: Tensor, source_dz: Tensor, count: int
    ) -> None:
        layer, before = LAYERS[index], LAYERS[index - 1]
        head = index == 6
        self._run(
            kernels.pointwise_back, self._rows_grid("pointwise_back", layer.side),
            dz, y, self._sums[layer.sums :], self._weights[layer.affine :],
            self._gradients[layer.affine :], self._kept[layer.weight :],
            self._rows[0, layer.weight :], source, self._sums[before.sums :],
            self._weights[before.affine :], self._gradients[before.affine :], source_dz, dz, count,
            WIDTH=PARAMETERS, OUTPUTS=layer.outputs, STRIDE=_stride(layer), BO=16 if head else 32,
            HEAD=head, PIXELS=layer.side**2, **self._options("pointwise_back", layer.side),
        )  # fmt: skip

    def _block_back(
        self, index: int, dz: Tensor, y: Tensor, source: Tensor, dy: Tensor, count: int,
        dilation: int,
    ) -> None:  # fmt: skip
        layer = LAYERS[index]
        self._run(
            kernels.block_weight_back, (*self._rows_grid("block_weight_back", layer.side), 3),
            dz, y, self._sums[layer.sums :], self._weights[layer.affine :],
            self._gradients[layer.affine :], source, self._rows[0, layer.weight :], dy, count,
            WIDTH=PARAMETERS, SIDE=layer.side, DILATION=dilation,
            **self._options("block_weight_back", layer.side),
        )  # fmt: skip

    def _pooled_back(
        self, index: int, dy: Tensor, y: Tensor, dz: Tensor, dx: Tensor | None, count: int,
        dilation: int,
    ) -> None:  # fmt: skip
        layer, before = LAYERS[index], LAYERS[index - 1]
        self._run(
            kernels.pooled_back, self._grid("pooled_back", layer.side, count),
            dy, self._kept[layer.weight :], y, self._sums[before.sums :],
            self._weights[before.affine :], self._gradients[before.affine :], dz,
            dz if dx is None else dx, count, SIDE=layer.side, DILATION=dilation,
            SKIP=dx is not None, **self._options("pooled_back", layer.side),
        )  # fmt: skip

    def _grid(self, kernel: str, side: int, count: int) -> tuple[int]:
        """Number of programs for `count` pixels."""
        shape = self._shapes[kernel][side]
        tiles = -(-count // shape.pixels)
        return (min(tiles, shape.per_unit * self._units) if shape.per_unit else tiles,)

    def _options(self, kernel: str, side: int) -> dict[str, int]:
        return self._shapes[kernel][side].options()

    def _rows_grid(self, kernel: str, side: int) -> tuple[int]:
        """Number of programs that each write a row of gradients; those without work write zeros."""
        return (self._shapes[kernel][side].per_unit * self._units,)


def _rows_of(layer: _Layer, shapes: Shapes) -> int:
    """Rows of gradients of a layer's weights, per multiprocessor."""
    if layer.inputs == 1:
        return shapes["stem_weight_back"][layer.side].per_unit
    kernel = "block_weight_back" if layer.taps == 9 else "pointwise_back"
    return shapes[kernel][layer.side].per_unit


def _launch(kernel: Any, grid: tuple[int, ...], *given: Any, **options: Any) -> None:
    kernel[grid](*given, **_ARITHMETIC, **options)


def _stride(layer: _Layer) -> int:
    """Channels of an activation, with padding."""
    return -(-layer.outputs // 8) * 8


def _halves(flat: Tensor, start: int, width: int, first: Tensor, second: Tensor) -> None:
    flat[start : start + width].copy_(first.detach())
    flat[start + width : start + 2 * width].copy_(second.detach())


def _copy_statistics(flat: Tensor, layer: _Layer, norm: nn.BatchNorm2d) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    _halves(flat, layer.sums, layer.outputs, mean, variance)


def _modules(model: MnistCnn) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    stages: list[Any] = [
        model.stem, model.block1, model.transition1, model.block2, model.transition2, model.block3,
    ]  # fmt: skip
    return [
        *((stage.conv, stage.norm) for stage in stages),
        (model.classifier, model.classifier_norm),
    ]


def _multiprocessors(device: torch.device) -> int:
    """Number of multiprocessors of the device; 1 where it does not say."""
    module = torch.get_device_module(device)
    if not hasattr(module, "get_device_properties"):
        return 1
    return int(module.get_device_properties(device).multi_processor_count)
