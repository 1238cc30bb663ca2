// Products of matrices, which the warps of a block share: rows of pixels times columns of weights.

#pragma once

DEVICE int warp() { return thread() / 32; }
DEVICE int lane() { return thread() % 32; }
DEVICE int smaller(int a, int b) { return a < b ? a : b; }
/// The larger number, or NaN where one is NaN (fmaxf takes the other).
DEVICE float larger(float a, float b) { return a >= b || a != a ? a : b; }
DEVICE float relu(float value) { return larger(value, 0); }

template <class Act>
DEVICE void for_each(int count, Act act) {
    for (int i = thread(); i < count; i += THREADS) act(i);
}

DEVICE float warp_sum(float value) {
    for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

/// Multiply (rows, pairs) by (pairs, COLUMNS), and give each two neighbours of the product to `use`.
///
/// STEPS: pairs, in eights. `left.row(r)` is where a row begins, `left.at(where, pair)` a pair of it;
/// `right(pair, column)` a pair of a column. `use(tile, row, column, first, second)`: tile is that of
/// the columns, known to the compiler.
template <int COLUMNS, int STEPS, class Left, class Right, class Use>
DEVICE void multiply(int rows, const Left& left, const Right& right, const Use& use) {
    constexpr int TILES = (COLUMNS + 7) / 8;
    // What a lane has of a tile: see `multiply_add`.
    const int lane_row = lane() / 4, lane_pair = lane() % 4;
    for (int tile = warp(); tile < (rows + 15) / 16; tile += WARPS) {
        float sums[TILES][4] = {};
        const int upper = tile * 16 + lane_row, lower = upper + 8;
        // Rows beyond the end are read as the last one, and not used.
        const int up = left.row(smaller(upper, rows - 1)), down = left.row(smaller(lower, rows - 1));
// Four at a time: all at once do not fit in the registers.
#pragma unroll 4
        for (int step = 0; step < STEPS; step++) {
            const int pair = step * 8 + lane_pair;
            const Bfloat16Pair a[4] = {left.at(up, pair), left.at(down, pair),
                                       left.at(up, pair + 4), left.at(down, pair + 4)};
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const int column = t * 8 + lane_row;
                const Bfloat16Pair b[2] = {right(pair, column), right(pair + 4, column)};
                multiply_add(sums[t], a, b);
            }
        }
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            const int column = t * 8 + lane_pair * 2;
            if (column < COLUMNS && upper < rows) use(t, upper, column, sums[t][0], sums[t][1]);
            if (column < COLUMNS && lower < rows) use(t, lower, column, sums[t][2], sums[t][3]);
        }
    }
}

/// Right side: what `load_weights` wrote. 8 more places a column spread columns over the banks.
template <int STEPS>
struct Weights {
    const Bfloat16* source;
    DEVICE Bfloat16Pair operator()(int pair, int column) const {
        return load_pair(source + column * (STEPS * 16 + 8) + 2 * pair);
    }
};

/// Left side: CHANNELS numbers of each pixel.
template <class Where, int CHANNELS>
struct Pixels {
    const Bfloat16* source;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE Bfloat16Pair at(int where, int pair) const {
        return 2 * pair < CHANNELS ? load_pair(source + where + 2 * pair) : to_pair(0, 0);
    }
};

/// Left side: the same after batch norm and ReLU.
template <class Where, int CHANNELS>
struct Activated {
    const Bfloat16* source;
    const Norm& norm;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE Bfloat16Pair at(int where, int pair) const {
        const int channel = 2 * pair;
        if (channel >= CHANNELS) return to_pair(0, 0);
        const Bfloat16Pair y = load_pair(source + where + channel);
        return to_pair(relu(low(y) * norm.factor[channel] + norm.shift[channel]),
                       relu(high(y) * norm.factor[channel + 1] + norm.shift[channel + 1]));
    }
};

/// Left side: the nine pixels that a convolution sees, at `distances`.
template <class Where>
struct Windows {
    const Bfloat16* source;
    const int* distances;
    DEVICE int row(int pixel) const { return Where::corner(pixel); }
    DEVICE Bfloat16Pair at(int where, int pair) const {
        return load_pair(source + where + distances[pair]);
    }
};

/// Fill the table of `Windows`; backward, the nine pixels are mirrored.
template <class Where, int CHANNELS, int STEPS>
DEVICE void measure_distances(int* distances, bool mirrored) {
    for_each(STEPS * 8, [&](int pair) {
        const int tap = 2 * pair / CHANNELS, channel = 2 * pair % CHANNELS;
        // Pairs beyond the end meet weights of zero.
        const bool is_inside = tap < 9;
        distances[pair] = is_inside ? Where::tap(mirrored ? 8 - tap : tap) + channel : 0;
    });
}

/// Put a layer's weights (outputs, inputs, taps) in shared memory, as the right side of a product.
///
/// Forward the columns are outputs, and a column has, of each tap, all inputs. BACKWARD, for the
/// gradients of inputs, the columns are inputs, and a column has, of each tap, all outputs. Weights
/// are read in their order, so that neighbours in a warp read neighbours.
template <int LAYER, int STEPS, bool BACKWARD>
DEVICE void load_weights(Bfloat16* target, const float* weights) {
    constexpr int IN = INPUTS[LAYER], OUT = OUTPUTS[LAYER], TAP = TAPS[LAYER];
    constexpr int COLUMNS = BACKWARD ? IN : OUT, OTHERS = BACKWARD ? OUT : IN;
    constexpr int FILLED = TAP * OTHERS, EMPTY = STEPS * 16 - FILLED, LENGTH = STEPS * 16 + 8;
    const float* source = weights + weights_of(LAYER);
    for_each(OUT * IN * TAP, [&](int i) {
        const int output = i / (IN * TAP), input = i / TAP % IN, tap = i % TAP;
        const int column = BACKWARD ? input : output, other = BACKWARD ? output : input;
        target[column * LENGTH + tap * OTHERS + other] = to_bfloat16(source[i]);
    });
    // What lies beyond the end meets numbers that are not used, and must not be NaN. Columns beyond
    // the end are not used themselves.
    if constexpr (EMPTY > 0) {
        for_each(COLUMNS * EMPTY, [&](int i) {
            target[i / EMPTY * LENGTH + FILLED + i % EMPTY] = to_bfloat16(0);
        });
    }
}
