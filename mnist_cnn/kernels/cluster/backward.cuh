// From the logits back to the gradient of every weight.

#pragma once

#include "forward.cuh"
#include "group_norm.cuh"

/// How the warps share the gradient of a layer's weights: sums over pixels of dy times x.
///
/// EACH: tiles of columns of a warp, which reads dy once for all of them. PARTS: the pixels are
/// shared among so many warps, which add to the sum one after another.
template <int LAYER, int COLUMNS, int EACH, int PARTS>
struct WeightGradient {
    static constexpr int OUT = OUTPUTS[LAYER], PIXELS = SIDES[LAYER] * SIDES[LAYER];
    static constexpr int OUT_TILES = (OUT + 15) / 16, TILES = (COLUMNS + 7) / 8;
    static constexpr int STEPS = (PIXELS + 15) / 16, STEPS_EACH = (STEPS + PARTS - 1) / PARTS;
    static constexpr int GROUPS = (TILES + EACH - 1) / EACH;
    static_assert(GROUPS * PARTS <= WARPS);

    // Computed where they are needed: kept, they would take registers.
    DEVICE static int part() { return warp() / GROUPS; }
    DEVICE static int first_tile() { return warp() % GROUPS * EACH; }
    // What a lane has of a tile: see `multiply_add`.
    DEVICE static int lane_row() { return lane() / 4; }
    DEVICE static int lane_pair() { return lane() % 4 * 2; }

    float sums[OUT_TILES][EACH][4] = {};

    /// Add the products of this warp's pixels: `left.row(pixel)` is where a pixel of dy begins,
    /// `right.row(pixel) + right.column(column)` the place of a number of x, and
    /// `right.value(place, column)` that number.
    template <class Left, class Right>
    DEVICE void add_products(const Left& left, const Right& right) {
        const Bfloat16 zero = to_bfloat16(0);
        const int end = smaller(STEPS, (part() + 1) * STEPS_EACH);
#pragma unroll 1
        for (int step = part() * STEPS_EACH; step < end; step++) {
            bool is_inside[4];
            int left_rows[4], right_rows[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int pixel = step * 16 + lane_pair() + k / 2 * 8 + k % 2;
                is_inside[k] = pixel < PIXELS;
                left_rows[k] = left.row(smaller(pixel, PIXELS - 1));
                right_rows[k] = right.row(smaller(pixel, PIXELS - 1));
            }
            Bfloat16Pair a[OUT_TILES][4];
#pragma unroll
            for (int t = 0; t < OUT_TILES; t++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const int output = t * 16 + lane_row() + k % 2 * 8, pixel = k / 2 * 2;
                    const auto value = [&](int p) {
                        return is_inside[p] && output < OUT ? left.source[left_rows[p] + output] : zero;
                    };
                    a[t][k] = join(value(pixel), value(pixel + 1));
                }
            }
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                // Columns beyond the end are read as the last one, and not used.
                const int column = smaller((first_tile() + e) * 8 + lane_row(), COLUMNS - 1);
                const int distance = right.column(column);
                const auto value = [&](int p) { return right.value(right_rows[p] + distance, column); };
                const Bfloat16Pair b[2] = {join(value(0), value(1)), join(value(2), value(3))};
#pragma unroll
                for (int t = 0; t < OUT_TILES; t++) multiply_add(sums[t][e], a[t], b);
            }
        }
    }

    /// Add this warp's sums to those of the warps before it; `place(output, column)` is the index.
    template <class Place>
    DEVICE void add_to(float* gradient, const Place& place) const {
#pragma unroll
        for (int t = 0; t < OUT_TILES; t++) {
#pragma unroll
            for (int e = 0; e < EACH; e++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const int output = t * 16 + lane_row() + k / 2 * 8;
                    const int column = (first_tile() + e) * 8 + lane_pair() + k % 2;
                    if (output >= OUT || column >= COLUMNS) continue;
                    float& sum = gradient[place(output, column)];
                    sum = (part() == 0 ? 0 : sum) + sums[t][e][k];
                }
            }
        }
    }
};

/// Write the gradient of a layer's weights, in torch's order, to the image's row.
template <int LAYER, int COLUMNS, int EACH, int PARTS, class Left, class Right, class Place>
DEVICE void weight_gradient(const Image& image, const Left& left, const Right& right,
                            const Place& place) {
    Shared& shared = image.shared;
    WeightGradient<LAYER, COLUMNS, EACH, PARTS> share;
    block_sync();
    if (share.part() < PARTS) share.add_products(left, right);
    for (int turn = 0; turn < PARTS; turn++) {
        if (share.part() == turn) share.add_to(shared.gradient, place);
        block_sync();
    }
    if (image.is_there) {
        float* target = image.gradients() + weights_of(LAYER);
        for_each(OUTPUTS[LAYER] * COLUMNS, [&](int i) { target[i] = shared.gradient[i]; });
    }
    block_sync();
}

/// Right side of such a gradient: the nine pixels that a convolution sees.
template <class Where, int CHANNELS>
struct WindowColumns {
    const Bfloat16* source;
    DEVICE int row(int pixel) const { return Where::corner(pixel); }
    DEVICE int column(int n) const { return Where::tap(n / CHANNELS) + n % CHANNELS; }
    DEVICE Bfloat16 value(int place, int) const { return source[place]; }
};

/// Right side of such a gradient: the channels of a pixel, as they are.
template <class Where>
struct PixelColumns {
    const Bfloat16* source;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE int column(int n) const { return n; }
    DEVICE Bfloat16 value(int place, int) const { return source[place]; }
};

/// Right side of such a gradient: the same after batch norm and ReLU.
template <class Where>
struct ActivatedColumns {
    const Bfloat16* source;
    const Norm& norm;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE int column(int n) const { return n; }
    DEVICE Bfloat16 value(int place, int n) const {
        return to_bfloat16(relu(to_float(source[place]) * norm.factor[n] + norm.shift[n]));
    }
};

/// The gradient of a 3 x 3 convolution's weights; x with its border.
template <int LAYER, class WhereY, class WhereX, int PARTS>
DEVICE void convolution_gradient(const Image& image, const Bfloat16* dy, const Bfloat16* x) {
    constexpr int IN = INPUTS[LAYER];
    // More tiles at a time do not fit in the registers.
    weight_gradient<LAYER, 9 * IN, 5, PARTS>(
        image, PixelColumns<WhereY>{dy}, WindowColumns<WhereX, IN>{x},
        [](int output, int column) { return (output * IN + column % IN) * 9 + column / IN; });
}

/// The gradient of a 1 x 1 convolution's weights; it reads `y` after its batch norm and ReLU.
template <int LAYER, class WhereDy, class WhereY, int EACH, int PARTS>
DEVICE void pointwise_gradient(const Image& image, const Bfloat16* dy, const Bfloat16* y) {
    weight_gradient<LAYER, INPUTS[LAYER], EACH, PARTS>(
        image, PixelColumns<WhereDy>{dy},
        ActivatedColumns<WhereY>{y, image.shared.norms[LAYER - 1]},
        [](int output, int column) { return output * INPUTS[LAYER] + column; });
}

/// Through a 1 x 1 convolution, a ReLU and a batch norm: `y` becomes its gradient.
template <int LAYER, class WhereDy, class WhereY, int STEPS>
DEVICE void pointwise_back(const Image& image, const Bfloat16* dy, Bfloat16* y) {
    constexpr int CHANNELS = INPUTS[LAYER];
    Shared& shared = image.shared;
    const Norm& norm = shared.norms[LAYER - 1];
    load_weights<LAYER, STEPS, true>(shared.weights, image.arguments.weights);
    block_sync();
    const auto run = [&](const auto& use) {
        multiply<CHANNELS, STEPS>(
            WhereY::PIXELS, Pixels<WhereDy, OUTPUTS[LAYER]>{dy}, Weights<STEPS>{shared.weights},
            [&](int tile, int pixel, int c, float first, float second) {
                Bfloat16* place = y + WhereY::at(pixel) + c;
                const Bfloat16Pair pair = load_pair(place);
                const float a = low(pair), b = high(pair);
                use(tile, place, c, a, is_alive(norm, c, a) ? first : 0.0f, b,
                    is_alive(norm, c + 1, b) ? second : 0.0f);
            });
    };
    ColumnSums<CHANNELS> sums;
    run([&](int tile, Bfloat16*, int c, float a, float da, float b, float db) {
        sums.add(tile, 0, da * normalised(norm, c, a), da);
        sums.add(tile, 1, db * normalised(norm, c + 1, b), db);
    });
    sums.write(shared.partial);
    finish_back<LAYER - 1, WARPS>(image);
    // The product once more: it takes less than the memory that would keep it.
    run([&](int, Bfloat16* place, int c, float a, float da, float b, float db) {
        store_pair(place, to_pair(through_norm(norm, shared.back, c, a, da),
                                  through_norm(norm, shared.back, c + 1, b, db)));
    });
    block_sync();
}

/// Gradient of a 3 x 3 convolution's inputs, all (pixels, 18).
template <int LAYER, class Where>
DEVICE void convolution_back(const Image& image, const Bfloat16* dy, Bfloat16* dx) {
    Shared& shared = image.shared;
    load_weights<LAYER, 18, true>(shared.weights, image.arguments.weights);
    measure_distances<Where, 32, 18>(shared.distances, true);
    block_sync();
    multiply<18, 18>(Where::PIXELS, Windows<Where>{dy, shared.distances},
                     Weights<18>{shared.weights},
                     [&](int, int pixel, int channel, float first, float second) {
                         store_pair(dx + pixel * 18 + channel, to_pair(first, second));
                     });
    block_sync();
}

/// Through max pooling, a ReLU and a batch norm: `y` becomes its gradient.
template <int LAYER, class Where>
DEVICE void pool_back(const Image& image, const Bfloat16* dx, Bfloat16* y) {
    constexpr int HALF_SIDE = Where::SIDE / 2, SLOTS = THREADS / 18;
    static_assert(SLOTS * 18 <= WARPS * WIDEST);
    Shared& shared = image.shared;
    const Norm& norm = shared.norms[LAYER];
    const int channel = thread() % 18, slot = thread() / 18;
    const auto for_windows = [&](const auto& act) {
        if (slot >= SLOTS) return;
        for (int window = slot; window < HALF_SIDE * HALF_SIDE; window += SLOTS) {
            const int first = 2 * (window / HALF_SIDE) * Where::SIDE + 2 * (window % HALF_SIDE);
            float values[4], best = 0;
            int winner = -1;  // none: the ReLU is off
            for (int k = 0; k < 4; k++) {
                values[k] = to_float(y[Where::at(first + k / 2 * Where::SIDE + k % 2) + channel]);
                const float z = values[k] * norm.factor[channel] + norm.shift[channel];
                // The first of equal ones, as in torch; NaN is larger than all.
                if (!(z <= best)) {
                    best = z;
                    winner = k;
                }
            }
            act(first, winner, values, to_float(dx[window * 18 + channel]));
        }
    };
    float scaled = 0, plain = 0;
    for_windows([&](int, int winner, const float(&values)[4], float d) {
        for (int k = 0; k < 4; k++) {
            if (k != winner) continue;
            scaled += d * normalised(norm, channel, values[k]);
            plain += d;
        }
    });
    if (slot < SLOTS) {
        shared.partial[slot * 36 + channel] = scaled;
        shared.partial[slot * 36 + 18 + channel] = plain;
    }
    finish_back<LAYER, SLOTS>(image);
    for_windows([&](int first, int winner, const float(&values)[4], float d) {
        for (int k = 0; k < 4; k++) {
            const float dz = k == winner ? d : 0;
            const float dy = through_norm(norm, shared.back, channel, values[k], dz);
            y[Where::at(first + k / 2 * Where::SIDE + k % 2) + channel] = to_bfloat16(dy);
        }
    });
    block_sync();
}

/// The image's loss, and the slope of the batch's mean loss along its logits.
DEVICE void loss(const Image& image) {
    Shared& shared = image.shared;
    const StepArguments& arguments = image.arguments;
    if (thread() < CLASSES) {
        const int64 place = *arguments.position + image.number;
        const int label =
            image.is_there ? static_cast<int>(arguments.labels[arguments.order[place]]) : 0;
        float largest;
        const float total = sum_of_exponentials(shared.logits, largest);
        const auto wanted = [&](int c) {
            return (c == label ? 1 - arguments.smoothing : 0) + arguments.smoothing / CLASSES;
        };
        const float share = expf(shared.logits[thread()] - largest) / total;
        shared.slopes[thread()] = (share - wanted(thread())) / arguments.count;
        if (thread() == 0 && image.is_there) {
            float sum = 0;
            for (int c = 0; c < CLASSES; c++) {
                sum -= wanted(c) * (shared.logits[c] - largest - logf(total));
            }
            arguments.losses[place] = sum;
        }
    }
    block_sync();
}

/// Through the mean over pixels, the last ReLU and the last batch norm.
DEVICE void head_back(const Image& image) {
    Shared& shared = image.shared;
    const Norm& norm = shared.norms[6];
    if (warp() < CLASSES) {
        const int channel = warp();
        float scaled = 0, plain = 0;
        for (int pixel = lane(); pixel < Y6::PIXELS; pixel += 32) {
            const float y = shared.y6[Y6::at(pixel) + channel];
            const float dz =
                is_alive(norm, channel, y) ? shared.slopes[channel] / Y6::PIXELS : 0.0f;
            scaled += dz * normalised(norm, channel, y);
            plain += dz;
        }
        scaled = warp_sum(scaled);
        plain = warp_sum(plain);
        if (lane() == 0) {
            shared.partial[channel] = scaled;
            shared.partial[CLASSES + channel] = plain;
        }
    }
    finish_back<6, 1>(image);
    for_each(Y6::SIZE, [&](int i) {
        const int channel = i % CLASSES;
        const float y = shared.y6[i];
        const float dz = is_alive(norm, channel, y) ? shared.slopes[channel] / Y6::PIXELS : 0.0f;
        shared.dy6[i] = to_bfloat16(through_norm(norm, shared.back, channel, y, dz));
    });
    block_sync();
}

/// Through the first 3 x 3 convolution, the skip connection and the stem.
///
/// `dz` (pixels, 18) is memory that nobody needs any more.
DEVICE void stem_back(const Image& image, const Bfloat16* dx1, Bfloat16* dz) {
    Shared& shared = image.shared;
    const Norm& norm = shared.norms[0];
    convolution_back<1, Y1>(image, shared.y1, dz);
    ColumnSums<18> sums;
    const auto gradient = [&](int pixel, int channel) {
        if (to_float(shared.stem[Stem::at(pixel) + channel]) <= 0) return 0.0f;
        const int y = pixel / SIDE, x = pixel % SIDE;
        const bool is_skipped = y % 2 == 0 && x % 2 == 0;
        const float skipped =
            is_skipped ? to_float(dx1[(y / 2 * (SIDE / 2) + x / 2) * 18 + channel]) : 0.0f;
        return to_float(dz[pixel * 18 + channel]) + skipped;
    };
    stem_outputs(shared, [&](int tile, int pixel, int c, float first, float second) {
        const float a = gradient(pixel, c), b = gradient(pixel, c + 1);
        sums.add(tile, 0, a * normalised(norm, c, first), a);
        sums.add(tile, 1, b * normalised(norm, c + 1, second), b);
    });
    sums.write(shared.partial);
    finish_back<0, WARPS>(image);
    stem_outputs(shared, [&](int, int pixel, int c, float first, float second) {
        const float a = through_norm(norm, shared.back, c, first, gradient(pixel, c));
        const float b = through_norm(norm, shared.back, c + 1, second, gradient(pixel, c + 1));
        store_pair(dz + pixel * 18 + c, to_pair(a, b));
    });
    weight_gradient<0, 9, 2, 8>(image, PixelColumns<Y2>{dz}, PixelColumns<Patches>{shared.patches},
                                [](int output, int column) { return output * 9 + column; });
}

DEVICE void backward(const Image& image) {
    Shared& shared = image.shared;
    head_back(image);
    pointwise_gradient<6, Y6, Y5, 1, 4>(image, shared.dy6, shared.y5);
    pointwise_back<6, Y6, Y5, 1>(image, shared.dy6, shared.y5);
    convolution_gradient<5, Y5, X2, 3>(image, shared.y5, shared.x2);
    convolution_back<5, Y5>(image, shared.y5, shared.dx2);
    pool_back<4, Y4>(image, shared.dx2, shared.y4);
    pointwise_gradient<4, Y4, Y3, 2, 4>(image, shared.y4, shared.y3);
    pointwise_back<4, Y4, Y3, 2>(image, shared.y4, shared.y3);
    convolution_gradient<3, Y3, X1, 3>(image, shared.y3, shared.x1);
    Bfloat16* dx1 = shared.y4;
    convolution_back<3, Y3>(image, shared.y3, dx1);
    pool_back<2, Y2>(image, dx1, shared.y2);
    pointwise_gradient<2, Y2, Y1, 2, 8>(image, shared.y2, shared.y1);
    pointwise_back<2, Y2, Y1, 2>(image, shared.y2, shared.y1);
    convolution_gradient<1, Y1, Stem, 3>(image, shared.y1, shared.stem);
    stem_back(image, dx1, shared.y2);
}
