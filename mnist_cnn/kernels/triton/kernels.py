"""The network's training step in twenty Triton kernels, with batch norm over the whole batch.

An activation is (pixels, channels), channels last and padded to a multiple of eight (18 to 24, 10
to 16), with the pixels of all images one after another. A convolution reads the raw output of the
convolution before it, applies that one's batch norm as it reads, and writes its own raw output and
the sums for its own batch norm. So each activation is written once, and no kernel only normalises.
The backward pass is similar: `dz` is the gradient of a batch norm's output, `dy` that of its input.

Sums over programs are integers in fixed point: integers give the same sum in every order, so a run
repeats bit for bit. The unit is 2^-20 for sums of outputs and 2^-40 for sums of gradients. A
partial sum that is NaN, or too large for its unit, makes the whole sum NaN. Gradients of weights
are too many for this, because atomic additions to one address wait for each other: each program
writes its own row of them, and the update adds the rows.

Arithmetic is in float32, products in the activations' own type. Triton's interpreter runs the
kernels without a GPU, in float32; so the tests compare each layer with torch's.
"""

# No `from __future__ import annotations`: Triton reads the types in signatures as written.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,valid-type"
# ruff: noqa: N803

import triton
import triton.language as tl

OUTPUT_UNIT = tl.constexpr(2.0**20)
GRADIENT_UNIT = tl.constexpr(2.0**40)
_POISON = tl.constexpr(2**52)
_LIMIT = tl.constexpr(2**51)
EPSILON = tl.constexpr(1e-5)
"""Default of torch.nn.BatchNorm2d."""
MOMENTUM = tl.constexpr(0.1)
"""Default of torch.nn.BatchNorm2d."""


@triton.jit
def _add(pointer, value, mask, UNIT: tl.constexpr):
    """Add to sums in fixed point; a NaN or a value that is too large makes them NaN."""
    scaled = value * UNIT
    known = (scaled > -(2.0**50)) & (scaled < 2.0**50)
    fixed = tl.where(known, tl.where(known, scaled, 0.0).to(tl.int64), _POISON)
    tl.atomic_add(pointer, fixed, mask=mask, sem="relaxed")


@triton.jit
def _mean(pointer, mask, count, UNIT: tl.constexpr):
    """A sum in fixed point, divided by `count`, float64."""
    fixed = tl.load(pointer, mask=mask, other=0)
    value = fixed.to(tl.float64) / (UNIT * count.to(tl.float64))
    return tl.where(fixed < _LIMIT, value, float("nan"))


@triton.jit
def _norm(sums, running, affine, o, count, CHANNELS: tl.constexpr, TRAIN: tl.constexpr):
    """Batch norm of CHANNELS channels, as mean, 1 / deviation, factor and shift."""
    valid = o < CHANNELS
    if TRAIN:
        mean64 = _mean(sums + o, valid, count, OUTPUT_UNIT)
        square = _mean(sums + CHANNELS + o, valid, count, OUTPUT_UNIT)
        mean = mean64.to(tl.float32)
        # This form keeps NaN.
        variance = (square - mean64 * mean64).to(tl.float32)
        variance = tl.where(variance < 0, 0.0, variance)
    else:
        mean = tl.load(running + o, mask=valid, other=0.0)
        variance = tl.load(running + CHANNELS + o, mask=valid, other=0.0)
    rstd = 1 / tl.sqrt(variance + EPSILON)
    factor = tl.load(affine + o, mask=valid, other=0.0) * rstd
    shift = tl.load(affine + CHANNELS + o, mask=valid, other=0.0) - mean * factor
    return mean, rstd, factor, shift


@triton.jit
def _means_of_gradient(gradients, o, count, CHANNELS: tl.constexpr):
    """Means of dz * normalised y and of dz; their sums are the gradients of gamma and beta."""
    valid = o < CHANNELS
    scaled = _mean(gradients + o, valid, count, GRADIENT_UNIT).to(tl.float32)
    plain = _mean(gradients + CHANNELS + o, valid, count, GRADIENT_UNIT).to(tl.float32)
    return scaled, plain


@triton.jit
def _rows(source, m, inside, c, STRIDE: tl.constexpr):
    """Activations of pixels `m`, channels `c`."""
    mask = inside[:, None] & (c < STRIDE)[None, :]
    return tl.load(source + m[:, None] * STRIDE + c[None, :], mask=mask, other=0.0)


@triton.jit
def _keep(target, m, inside, c, value, STRIDE: tl.constexpr):
    mask = inside[:, None] & (c < STRIDE)[None, :]
    tl.store(target + m[:, None] * STRIDE + c[None, :], value, mask=mask)


@triton.jit
def _moved(source, m, inside, c, dy, dx, SIDE: tl.constexpr, STRIDE: tl.constexpr):
    """Activations of the pixels at offset (dy, dx) from `m`; zero outside of the image."""
    y = (m // SIDE) % SIDE + dy
    x = m % SIDE + dx
    here = inside & (y >= 0) & (y < SIDE) & (x >= 0) & (x < SIDE)
    return _rows(source, m + dy * SIDE + dx, here, c, STRIDE)


@triton.jit
def _patches(pixels, m, inside, SIDE: tl.constexpr):
    """The 3x3 neighbourhood of each pixel, (M, 16): nine numbers and seven zeros."""
    t = tl.arange(0, 16)
    dy, dx = t // 3 - 1, t % 3 - 1
    y = ((m // SIDE) % SIDE)[:, None] + dy[None, :]
    x = (m % SIDE)[:, None] + dx[None, :]
    here = inside[:, None] & (y >= 0) & (y < SIDE) & (x >= 0) & (x < SIDE) & (t < 9)[None, :]
    return tl.load(pixels + m[:, None] + (dy * SIDE + dx)[None, :], mask=here, other=0.0)


@triton.jit
def _stem_weight(weight, o):
    """The stem's weights (9, 18), padded to (16, 32)."""
    t = tl.arange(0, 16)
    mask = (t < 9)[:, None] & (o < 18)[None, :]
    return tl.load(weight + t[:, None] * 18 + o[None, :], mask=mask, other=0.0)


@triton.jit
def distort(images, order, table, place, step, target, scale, offset, SIDE: tl.constexpr,
            COLUMNS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Choose, distort and normalise, one program per image; this first kernel counts the step.

    See mnist_cnn.augment.
    """
    n = tl.program_id(0)
    if n == 0:
        tl.store(step, tl.load(step) + 1)
    where = tl.load(place) + n
    image = tl.load(order + where)
    row = table + where * COLUMNS
    cos, sin = tl.load(row), tl.load(row + 1)
    a, b, c, d = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
    move_x, move_y = tl.load(row + 6), tl.load(row + 7)
    xx, xy = cos * a - sin * c, cos * b - sin * d
    yx, yy = sin * a + cos * c, sin * b + cos * d
    p = tl.arange(0, BLOCK)
    inside = p < SIDE * SIDE
    # In pixels from the image's centre, with the translation undone.
    x = (p % SIDE).to(tl.float32) - (SIDE - 1) / 2 - move_x
    y = (p // SIDE).to(tl.float32) - (SIDE - 1) / 2 - move_y
    from_x = xx * x + xy * y + (SIDE - 1) / 2
    from_y = yx * x + yy * y + (SIDE - 1) / 2
    left, top = tl.floor(from_x), tl.floor(from_y)
    right_share, low_share = from_x - left, from_y - top
    column, line = left.to(tl.int32), top.to(tl.int32)
    base = images + image * SIDE * SIDE
    value = tl.zeros((BLOCK,), tl.float32)
    for corner in tl.static_range(4):
        i = corner // 2
        j = corner % 2
        share_y = low_share if i == 1 else 1 - low_share
        share_x = right_share if j == 1 else 1 - right_share
        at_y, at_x = line + i, column + j
        here = inside & (at_y >= 0) & (at_y < SIDE) & (at_x >= 0) & (at_x < SIDE)
        pixel = tl.load(base + at_y * SIDE + at_x, mask=here, other=0)
        value += pixel.to(tl.float32) * share_y * share_x
    tl.store(target + n * SIDE * SIDE + p, value * scale - offset, mask=inside)


@triton.jit
def normalise(images, target, count, scale, offset, BLOCK: tl.constexpr):
    """Normalise without distortion, for evaluation."""
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pixel = tl.load(images + p, mask=p < count, other=0)
    tl.store(target + p, pixel.to(tl.float32) * scale - offset, mask=p < count)


@triton.jit
def stem_sums(pixels, weight, sums, count, SIDE: tl.constexpr, BM: tl.constexpr):
    """Sums for the batch norm of the stem's convolution, whose output is not stored."""
    o = tl.arange(0, 32)
    w = _stem_weight(weight, o)
    total = tl.zeros((32,), tl.float32)
    square = tl.zeros((32,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        y = tl.dot(_patches(pixels, m, m < count, SIDE), w, input_precision="ieee")
        total += tl.sum(y, 0)
        square += tl.sum(y * y, 0)
    _add(sums + o, total, o < 18, OUTPUT_UNIT)
    _add(sums + 18 + o, square, o < 18, OUTPUT_UNIT)


@triton.jit
def stem(pixels, weight, sums, running, affine, target, count, SIDE: tl.constexpr,
         TRAIN: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """Convolution, batch norm and ReLU of the stem: (count) to (count, 24)."""
    o = tl.arange(0, 32)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    _, _, factor, shift = _norm(sums, running, affine, o, count, 18, TRAIN)
    patches = _patches(pixels, m, m < count, SIDE)
    y = tl.dot(patches, _stem_weight(weight, o), input_precision="ieee")
    z = tl.maximum(y * factor[None, :] + shift[None, :], 0.0)
    _keep(target, m, m < count, o, z.to(target.dtype.element_ty), 24)


@triton.jit
def block(source, weight, target, sums, count, SIDE: tl.constexpr, DILATION: tl.constexpr,
          TRAIN: tl.constexpr, STAGES: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """A 3x3 convolution: (count, 24) to (count, 32), and its sums."""
    o = tl.arange(0, 32)
    total = tl.zeros((32,), tl.float32)
    square = tl.zeros((32,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        y = tl.zeros((BM, 32), tl.float32)
        for tap in tl.range(9, num_stages=STAGES):
            x = _moved(source, m, m < count, o, (tap // 3 - 1) * DILATION,
                       (tap % 3 - 1) * DILATION, SIDE, 24)  # fmt: skip
            w = tl.load(weight + (tap * 18 + o)[:, None] * 32 + o[None, :],
                        mask=(o < 18)[:, None], other=0.0)  # fmt: skip
            y = tl.dot(x, w, y, input_precision="ieee")
        kept = y.to(target.dtype.element_ty)
        _keep(target, m, m < count, o, kept, 32)
        if TRAIN:
            y = kept.to(tl.float32)
            total += tl.sum(y, 0)
            square += tl.sum(y * y, 0)
    if TRAIN:
        _add(sums + o, total, o < 32, OUTPUT_UNIT)
        _add(sums + 32 + o, square, o < 32, OUTPUT_UNIT)


@triton.jit
def pointwise(source, source_sums, source_running, source_affine, weight, target, sums, count,
              OUTPUTS: tl.constexpr, STRIDE: tl.constexpr, BO: tl.constexpr, TRAIN: tl.constexpr,
              BM: tl.constexpr):  # fmt: skip
    """Batch norm and ReLU of a block, then a 1x1 convolution: (count, 32) to (count, STRIDE)."""
    c, o = tl.arange(0, 32), tl.arange(0, BO)
    _, _, factor, shift = _norm(source_sums, source_running, source_affine, c, count, 32, TRAIN)
    w = tl.load(weight + c[:, None] * OUTPUTS + o[None, :], mask=(o < OUTPUTS)[None, :], other=0.0)
    total = tl.zeros((BO,), tl.float32)
    square = tl.zeros((BO,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        inside = m < count
        x = _rows(source, m, inside, c, 32).to(tl.float32)
        a = tl.maximum(x * factor[None, :] + shift[None, :], 0.0)
        y = tl.dot(a.to(w.dtype), w, input_precision="ieee")
        kept = y.to(target.dtype.element_ty)
        _keep(target, m, inside, o, kept, STRIDE)
        if TRAIN:
            # Beyond the last pixel the activations are not zero but batch norm's shift.
            y = tl.where(inside[:, None], kept.to(tl.float32), 0.0)
            total += tl.sum(y, 0)
            square += tl.sum(y * y, 0)
    if TRAIN:
        _add(sums + o, total, o < OUTPUTS, OUTPUT_UNIT)
        _add(sums + OUTPUTS + o, square, o < OUTPUTS, OUTPUT_UNIT)


@triton.jit
def pool(source, sums, running, affine, skip, target, count, SIDE: tl.constexpr,
         SKIP: tl.constexpr, TRAIN: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """Batch norm, max-pool by two, ReLU, the skip with SKIP: (4 count, 24) to (count, 24).

    SIDE is the side of the output.
    """
    o = tl.arange(0, 32)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = m < count
    _, _, factor, shift = _norm(sums, running, affine, o, count * 4, 18, TRAIN)
    first = (m // SIDE) * (4 * SIDE) + (m % SIDE) * 2
    most = tl.zeros((BM, 32), tl.float32)  # the ReLU
    for corner in tl.static_range(4):
        at = first + (corner // 2) * (2 * SIDE) + corner % 2
        y = _rows(source, at, inside, o, 24).to(tl.float32)
        most = tl.maximum(most, y * factor[None, :] + shift[None, :])
    if SKIP:
        most += _rows(skip, first, inside, o, 24).to(tl.float32)
    _keep(target, m, inside, o, most.to(target.dtype.element_ty), 24)


@triton.jit
def _logits(source, n, factor, shift, o, PIXELS: tl.constexpr, BP: tl.constexpr):
    """For one image: raw outputs (BP, 16), mask of those that pass the ReLU, and logits (16)."""
    p = tl.arange(0, BP)
    y = _rows(source, n * PIXELS + p, p < PIXELS, o, 16).to(tl.float32)
    z = y * factor[None, :] + shift[None, :]
    alive = (z > 0) & (p < PIXELS)[:, None]
    # This form keeps NaN.
    z = tl.where(z <= 0, 0.0, z)
    z = tl.where((p < PIXELS)[:, None], z, 0.0)
    return y, alive, tl.sum(z, 0) / PIXELS


@triton.jit
def loss(source, sums, affine, order, labels, place, losses, slopes, gradients, images, smoothing,
         PIXELS: tl.constexpr, BP: tl.constexpr):  # fmt: skip
    """Each image's loss, its slope along the logits, and the classifier norm's gradients."""
    o = tl.arange(0, 16)
    valid = o < 10
    mean, rstd, factor, shift = _norm(sums, sums, affine, o, images * PIXELS, 10, True)
    start = tl.load(place)
    by_scaled = tl.zeros((16,), tl.float32)
    by_plain = tl.zeros((16,), tl.float32)
    for n in range(tl.program_id(0), images, tl.num_programs(0)):
        y, alive, logits = _logits(source, n, factor, shift, o, PIXELS, BP)
        logits = tl.where(valid, logits, -float("inf"))
        logits -= tl.max(logits, 0)
        share = tl.exp(logits)
        total = tl.sum(share, 0)
        log_share = tl.where(valid, logits - tl.log(total), 0.0)
        label = tl.load(labels + tl.load(order + start + n))
        wanted = tl.where(o == label, 1 - smoothing, 0.0) + tl.where(valid, smoothing / 10, 0.0)
        tl.store(losses + start + n, -tl.sum(wanted * log_share, 0))
        slope = (share / total - wanted) / images
        tl.store(slopes + n * 16 + o, slope)
        dz = tl.where(alive, slope[None, :] / PIXELS, 0.0)
        by_scaled += tl.sum(dz * (y - mean[None, :]) * rstd[None, :], 0)
        by_plain += tl.sum(dz, 0)
    _add(gradients + o, by_scaled, valid, GRADIENT_UNIT)
    _add(gradients + 10 + o, by_plain, valid, GRADIENT_UNIT)


@triton.jit
def tally(source, running, affine, truth, totals, images, PIXELS: tl.constexpr,
          BP: tl.constexpr):  # fmt: skip
    """Number of images classified correctly, and the sum of all losses in units of 2^-20."""
    o = tl.arange(0, 16)
    n = tl.program_id(0)
    _, _, factor, shift = _norm(running, running, affine, o, images, 10, False)
    _, _, logits = _logits(source, n, factor, shift, o, PIXELS, BP)
    logits = tl.where(o < 10, logits, -float("inf"))
    best = tl.max(logits, 0)
    label = tl.load(truth + n)
    chosen = tl.min(tl.where(logits == best, o, 16), 0)
    total = tl.log(tl.sum(tl.exp(logits - best), 0))
    missed = total - tl.sum(tl.where(o == label, logits - best, 0.0), 0)
    tl.atomic_add(totals, (chosen == label).to(tl.int64), sem="relaxed")
    _add(totals + 1 + tl.arange(0, 1), tl.zeros((1,), tl.float32) + missed,
         tl.arange(0, 1) < 1, OUTPUT_UNIT)  # fmt: skip


@triton.jit
def pointwise_back(dz, y, sums, affine, gradients, weight, weight_gradient, source, source_sums,
                   source_affine, source_gradients, source_dz, slopes, count, WIDTH: tl.constexpr,
                   OUTPUTS: tl.constexpr, STRIDE: tl.constexpr, BO: tl.constexpr,
                   HEAD: tl.constexpr, PIXELS: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """Backward pass through batch norm, 1x1 convolution and the ReLU before it.

    For the classifier (HEAD) dz is not stored: it is the slope along the image's logits.
    """
    c, o = tl.arange(0, 32), tl.arange(0, BO)
    mean, rstd, factor, shift = _norm(sums, sums, affine, o, count, OUTPUTS, True)
    scaled, plain = _means_of_gradient(gradients, o, count, OUTPUTS)
    mean1, rstd1, factor1, shift1 = _norm(
        source_sums, source_sums, source_affine, c, count, 32, True
    )
    w = tl.load(weight + c[None, :] * OUTPUTS + o[:, None], mask=(o < OUTPUTS)[:, None], other=0.0)
    by_weight = tl.zeros((32, BO), tl.float32)
    by_scaled = tl.zeros((32,), tl.float32)
    by_plain = tl.zeros((32,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        inside = m < count
        out = _rows(y, m, inside, o, STRIDE).to(tl.float32)
        if HEAD:
            slope = _rows(slopes, m // PIXELS, inside, o, STRIDE) / PIXELS
            g = tl.where(out * factor[None, :] + shift[None, :] > 0, slope, 0.0)
        else:
            g = _rows(dz, m, inside, o, STRIDE).to(tl.float32)
        out = (out - mean[None, :]) * rstd[None, :]
        dy = factor[None, :] * (g - plain[None, :] - out * scaled[None, :])
        dy = tl.where(inside[:, None], dy, 0.0).to(w.dtype)
        before = _rows(source, m, inside, c, 32).to(tl.float32)
        a = tl.maximum(before * factor1[None, :] + shift1[None, :], 0.0)
        by_weight = tl.dot(tl.trans(a.to(w.dtype)), dy, by_weight, input_precision="ieee")
        da = tl.dot(dy, w, input_precision="ieee")
        kept = tl.where(a > 0, da, 0.0).to(source_dz.dtype.element_ty)
        _keep(source_dz, m, inside, c, kept, 32)
        da = kept.to(tl.float32)
        by_plain += tl.sum(da, 0)
        by_scaled += tl.sum(da * (before - mean1[None, :]) * rstd1[None, :], 0)
    mine = weight_gradient + tl.program_id(0) * WIDTH
    tl.store(mine + c[:, None] * OUTPUTS + o[None, :], by_weight, mask=(o < OUTPUTS)[None, :])
    _add(source_gradients + c, by_scaled, c < 32, GRADIENT_UNIT)
    _add(source_gradients + 32 + c, by_plain, c < 32, GRADIENT_UNIT)


@triton.jit
def _tap_back(gradient, by_tap, tap):
    c = tl.arange(0, 32)
    tl.store(gradient + (tap * 18 + c)[:, None] * 32 + c[None, :], by_tap, mask=(c < 18)[:, None])


@triton.jit
def block_weight_back(dz, y, sums, affine, gradients, source, weight_gradient, dy_kept, count,
                      WIDTH: tl.constexpr, SIDE: tl.constexpr, DILATION: tl.constexpr,
                      BM: tl.constexpr):  # fmt: skip
    """Backward pass through a block's batch norm, and to its 3x3 weights; stores dy.

    A program's second index is its row of the 3x3 kernel.
    """
    c = tl.arange(0, 32)
    row = tl.program_id(1)
    away = (row - 1) * DILATION
    mean, rstd, factor, _ = _norm(sums, sums, affine, c, count, 32, True)
    scaled, plain = _means_of_gradient(gradients, c, count, 32)
    left = tl.zeros((32, 32), tl.float32)
    middle = tl.zeros((32, 32), tl.float32)
    right = tl.zeros((32, 32), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        inside = m < count
        out = (_rows(y, m, inside, c, 32).to(tl.float32) - mean[None, :]) * rstd[None, :]
        g = _rows(dz, m, inside, c, 32).to(tl.float32)
        full = factor[None, :] * (g - plain[None, :] - out * scaled[None, :])
        dy = tl.where(inside[:, None], full, 0.0).to(dy_kept.dtype.element_ty)
        if row == 1:
            _keep(dy_kept, m, inside, c, dy, 32)
        x = _moved(source, m, inside, c, away, -DILATION, SIDE, 24)
        left = tl.dot(tl.trans(x), dy, left, input_precision="ieee")
        x = _moved(source, m, inside, c, away, 0, SIDE, 24)
        middle = tl.dot(tl.trans(x), dy, middle, input_precision="ieee")
        x = _moved(source, m, inside, c, away, DILATION, SIDE, 24)
        right = tl.dot(tl.trans(x), dy, right, input_precision="ieee")
    mine = weight_gradient + tl.program_id(0) * WIDTH
    _tap_back(mine, left, row * 3)
    _tap_back(mine, middle, row * 3 + 1)
    _tap_back(mine, right, row * 3 + 2)


@triton.jit
def _input_back(dy, weight, m, inside, SIDE: tl.constexpr, DILATION: tl.constexpr,
                STAGES: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """The gradient of a block's input, (BM, 32); 18 channels are not zero."""
    c = tl.arange(0, 32)
    dx = tl.zeros((BM, 32), tl.float32)
    for tap in tl.range(9, num_stages=STAGES):
        g = _moved(dy, m, inside, c, (1 - tap // 3) * DILATION, (1 - tap % 3) * DILATION, SIDE, 32)
        w = tl.load(weight + (tap * 18 + c)[None, :] * 32 + c[:, None],
                    mask=(c < 18)[None, :], other=0.0)  # fmt: skip
        dx = tl.dot(g, w, dx, input_precision="ieee")
    return dx


@triton.jit
def pooled_back(dy, weight, y, sums, affine, gradients, dz, dx_kept, count, SIDE: tl.constexpr,
                DILATION: tl.constexpr, SKIP: tl.constexpr, STAGES: tl.constexpr,
                BM: tl.constexpr):  # fmt: skip
    """Backward pass through a block's 3x3 convolution, and the ReLU and pooling before it.

    SIDE is the block's side; y and dz have twice that side. The gradient goes to the pixel that
    pooling chose. With SKIP it is also stored for the term added after pooling.
    """
    c = tl.arange(0, 32)
    mean, rstd, factor, shift = _norm(sums, sums, affine, c, count * 4, 18, True)
    by_scaled = tl.zeros((32,), tl.float32)
    by_plain = tl.zeros((32,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        inside = m < count
        dx = _input_back(dy, weight, m, inside, SIDE, DILATION, STAGES, BM).to(dz.dtype.element_ty)
        if SKIP:
            _keep(dx_kept, m, inside, c, dx, 24)
        first = (m // SIDE) * (4 * SIDE) + (m % SIDE) * 2
        most = tl.zeros((BM, 32), tl.float32)
        normal = tl.zeros((BM, 32), tl.float32)
        taken = tl.zeros((BM, 32), tl.int32) - 1  # -1: the ReLU took none
        for corner in tl.static_range(4):
            at = first + (corner // 2) * (2 * SIDE) + corner % 2
            out = _rows(y, at, inside, c, 24).to(tl.float32)
            z = out * factor[None, :] + shift[None, :]
            more = z > most
            most = tl.where(more, z, most)
            normal = tl.where(more, (out - mean[None, :]) * rstd[None, :], normal)
            taken = tl.where(more, corner, taken)
        for corner in tl.static_range(4):
            at = first + (corner // 2) * (2 * SIDE) + corner % 2
            _keep(dz, at, inside, c, tl.where(taken == corner, dx, 0.0), 24)
        passed = tl.where((taken >= 0) & inside[:, None], dx.to(tl.float32), 0.0)
        by_plain += tl.sum(passed, 0)
        by_scaled += tl.sum(passed * normal, 0)
    _add(gradients + c, by_scaled, c < 18, GRADIENT_UNIT)
    _add(gradients + 18 + c, by_plain, c < 18, GRADIENT_UNIT)


@triton.jit
def stem_input_back(dy, weight, skipped, stem_kept, pixels, stem_weight, sums, affine,
                    gradients, dz, count, SIDE: tl.constexpr, STAGES: tl.constexpr,
                    BM: tl.constexpr):  # fmt: skip
    """Backward pass through the first block's convolution, the skip and the stem's ReLU."""
    c = tl.arange(0, 32)
    mean, rstd, _, _ = _norm(sums, sums, affine, c, count, 18, True)
    w = _stem_weight(stem_weight, c)
    by_scaled = tl.zeros((32,), tl.float32)
    by_plain = tl.zeros((32,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        inside = m < count
        dx = _input_back(dy, weight, m, inside, SIDE, 1, STAGES, BM)
        y, x = (m // SIDE) % SIDE, m % SIDE
        added = inside & (y % 2 == 0) & (x % 2 == 0)
        at = (m // (SIDE * SIDE)) * (SIDE * SIDE // 4) + (y // 2) * (SIDE // 2) + x // 2
        dx += _rows(skipped, at, added, c, 24).to(tl.float32)
        alive = _rows(stem_kept, m, inside, c, 24) > 0
        kept = tl.where(alive, dx, 0.0).to(dz.dtype.element_ty)
        _keep(dz, m, inside, c, kept, 24)
        dx = kept.to(tl.float32)
        out = tl.dot(_patches(pixels, m, inside, SIDE), w, input_precision="ieee")
        by_plain += tl.sum(dx, 0)
        by_scaled += tl.sum(dx * (out - mean[None, :]) * rstd[None, :], 0)
    _add(gradients + c, by_scaled, c < 18, GRADIENT_UNIT)
    _add(gradients + 18 + c, by_plain, c < 18, GRADIENT_UNIT)


@triton.jit
def stem_weight_back(dz, pixels, weight, sums, affine, gradients, weight_gradient, count,
                     WIDTH: tl.constexpr, SIDE: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """Backward pass through the stem's batch norm, and to its weights."""
    c, t = tl.arange(0, 32), tl.arange(0, 16)
    mean, rstd, factor, _ = _norm(sums, sums, affine, c, count, 18, True)
    scaled, plain = _means_of_gradient(gradients, c, count, 18)
    w = _stem_weight(weight, c)
    by_weight = tl.zeros((16, 32), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(count, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        inside = m < count
        patches = _patches(pixels, m, inside, SIDE)
        out = tl.dot(patches, w, input_precision="ieee")
        out = (out - mean[None, :]) * rstd[None, :]
        g = _rows(dz, m, inside, c, 24).to(tl.float32)
        dy = factor[None, :] * (g - plain[None, :] - out * scaled[None, :])
        dy = tl.where(inside[:, None], dy, 0.0).to(w.dtype)
        by_weight = tl.dot(tl.trans(patches), dy, by_weight, input_precision="ieee")
    mine = weight_gradient + tl.program_id(0) * WIDTH
    mask = (t < 9)[:, None] & (c < 18)[None, :]
    tl.store(mine + t[:, None] * 18 + c[None, :], by_weight, mask=mask)


@triton.jit
def update(weights, velocities, gradients, rows, row_counts, kept, average, running, sums,
           average_running, starts, widths, counts, rates, shares, step, place, size, count,
           momentum, decay, AVERAGE: tl.constexpr, LAYERS: tl.constexpr, TOGETHER: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """SGD with Nesterov momentum and weight decay, the average; resets the gradients to zero.

    LAYERS more programs update batch norm's running statistics; one moves the position on.
    """
    program = tl.program_id(0)
    blocks = tl.num_programs(0) - LAYERS - 1
    now = tl.load(step) - 1  # the step's first kernel has counted it
    share = tl.load(shares + now)
    if program < blocks:
        i = program * BLOCK + tl.arange(0, BLOCK)
        inside = i < count
        rate = tl.load(rates + now)
        weight = tl.load(weights + i, mask=inside, other=0.0)
        fixed = tl.load(gradients + i, mask=inside, other=0)
        slope = (fixed.to(tl.float64) / GRADIENT_UNIT).to(tl.float32)
        slope = tl.where(fixed < _LIMIT, slope, float("nan")) + decay * weight
        # A block contains weights of one layer, or has no rows.
        several = tl.load(row_counts + program)
        for first in range(0, several, TOGETHER):
            r = first + tl.arange(0, TOGETHER)
            mask = (r < several)[:, None] & inside[None, :]
            slope += tl.sum(
                tl.load(rows + r[:, None] * count + i[None, :], mask=mask, other=0.0), 0
            )
        velocity = momentum * tl.load(velocities + i, mask=inside, other=0.0) + slope
        weight -= rate * (slope + momentum * velocity)
        tl.store(velocities + i, velocity, mask=inside)
        tl.store(weights + i, weight, mask=inside)
        tl.store(kept + i, weight.to(kept.dtype.element_ty), mask=inside)
        tl.store(gradients + i, tl.zeros((BLOCK,), tl.int64), mask=inside)
        if AVERAGE:
            mean = tl.load(average + i, mask=inside, other=0.0)
            tl.store(average + i, mean + share * (weight - mean), mask=inside)
    elif program == blocks + LAYERS:
        tl.store(place, tl.load(place) + size)
    else:
        _follow(running, sums, average_running, tl.load(starts + program - blocks),
                tl.load(widths + program - blocks), tl.load(counts + program - blocks), share,
                AVERAGE)  # fmt: skip


@triton.jit
def _follow(running, sums, average, start, width, count, share, AVERAGE: tl.constexpr):
    """Update one layer's running statistics after a step; resets its sums to zero."""
    o = tl.arange(0, 32)
    valid = o < width
    mean = _mean(sums + start + o, valid, count, OUTPUT_UNIT)
    square = _mean(sums + start + width + o, valid, count, OUTPUT_UNIT)
    variance = (square - mean * mean) * (count.to(tl.float64) / (count - 1).to(tl.float64))
    for half in tl.static_range(2):
        at = start + half * width + o
        latest = (mean if half == 0 else variance).to(tl.float32)
        value = tl.load(running + at, mask=valid, other=0.0)
        value += MOMENTUM * (latest - value)
        tl.store(running + at, value, mask=valid)
        tl.store(sums + at, tl.zeros((32,), tl.int64), mask=valid)
        if AVERAGE:
            kept = tl.load(average + at, mask=valid, other=0.0)
            tl.store(average + at, kept + share * (value - kept), mask=valid)
