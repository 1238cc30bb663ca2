// Where numbers lie: the network's layers in flat tensors, activations in a block's shared memory.

#pragma once

constexpr int LAYERS = 7;
constexpr int INPUTS[LAYERS] = {1, 18, 32, 18, 32, 18, 32};
constexpr int OUTPUTS[LAYERS] = {18, 32, 18, 32, 18, 32, 10};
constexpr int TAPS[LAYERS] = {9, 9, 1, 9, 1, 9, 1};
constexpr int SIDES[LAYERS] = {28, 28, 28, 14, 14, 7, 7};
/// Most outputs of a layer.
constexpr int WIDEST = 32;
constexpr int CLASSES = 10;

/// Index of a layer's weights (outputs, inputs, taps) among all parameters, in torch's order; its
/// batch norm's scales and shifts follow.
DEVICE constexpr int weights_of(int layer) {
    int start = 0;
    for (int i = 0; i < layer; i++) start += INPUTS[i] * OUTPUTS[i] * TAPS[i] + 2 * OUTPUTS[i];
    return start;
}

DEVICE constexpr int scales_of(int layer) {
    return weights_of(layer) + INPUTS[layer] * OUTPUTS[layer] * TAPS[layer];
}

DEVICE constexpr int shifts_of(int layer) { return scales_of(layer) + OUTPUTS[layer]; }

/// Index of a layer's means among all running statistics; its variances follow.
DEVICE constexpr int statistics_of(int layer) {
    int start = 0;
    for (int i = 0; i < layer; i++) start += 2 * OUTPUTS[i];
    return start;
}

constexpr int PARAMETERS = weights_of(LAYERS);
constexpr int STATISTICS = statistics_of(LAYERS);
static_assert(PARAMETERS == 17506);

/// An image's activation: pixels, each with its channels in the first of STRIDE places, and a border
/// of zeros as wide as the next convolution's dilation.
template <int SIDE_, int BORDER, int STRIDE>
struct Layout {
    static constexpr int SIDE = SIDE_;
    static constexpr int PIXELS = SIDE * SIDE;
    static constexpr int WIDTH = SIDE + 2 * BORDER;
    static constexpr int SIZE = WIDTH * WIDTH * STRIDE;

    /// Index of a pixel's first channel.
    DEVICE static int at(int pixel) {
        return ((pixel / SIDE + BORDER) * WIDTH + pixel % SIDE + BORDER) * STRIDE;
    }

    /// Index of the top left of the nine pixels that a convolution sees there.
    DEVICE static int corner(int pixel) {
        return ((pixel / SIDE) * WIDTH + pixel % SIDE) * STRIDE;
    }

    /// Distance of one of the nine from the top left.
    DEVICE static int tap(int tap) { return (tap / 3 * WIDTH + tap % 3) * BORDER * STRIDE; }
};

// A tile reads eight rows of four words at once. With 18 channels, 9 words, and with 40 places, 20
// words, they lie in different banks, nearly; with 36 places two meet, but there is no room for more.
using Patches = Layout<28, 0, 10>;
using Stem = Layout<28, 1, 18>;
using Y1 = Layout<28, 1, 40>;
using Y2 = Layout<28, 0, 18>;
using X1 = Layout<14, 2, 18>;
using Y3 = Layout<14, 2, 36>;
using Y4 = Layout<14, 0, 18>;
using X2 = Layout<7, 1, 18>;
using Y5 = Layout<7, 1, 36>;
using Y6 = Layout<7, 0, 10>;

constexpr int EXCHANGES = 2 * LAYERS;

/// Numbers of a batch norm, by channel.
struct Norm {
    float mean[WIDEST], inverse_deviation[WIDEST], factor[WIDEST], shift[WIDEST];
};

/// Of gradients `dz` of a batch norm's outputs: the means of dz times the normalised input, and of dz.
struct NormBack {
    float scaled[WIDEST], plain[WIDEST];
};

/// A block's shared memory. `y` is a convolution's output, later its gradient; `x` is what the next
/// one reads.
struct Shared {
    /// Each pixel's 3 x 3 neighbours, and a zero.
    Bfloat16 patches[Patches::SIZE];
    Bfloat16 stem[Stem::SIZE];
    Bfloat16 y1[Y1::SIZE];
    Bfloat16 y2[Y2::SIZE];
    Bfloat16 x1[X1::SIZE];
    Bfloat16 y3[Y3::SIZE];
    Bfloat16 y4[Y4::SIZE];
    Bfloat16 x2[X2::SIZE];
    Bfloat16 y5[Y5::SIZE];
    union {
        struct {
            float y6[Y6::SIZE];
            Bfloat16 dy6[Y6::SIZE];
        };
        /// Gradient of `x2`, without a border, when those above have been read.
        Bfloat16 dx2[X2::PIXELS * 18];
    };
    Bfloat16 stem_weights[24 * 24];
    /// Distance of each pair of a convolution's inputs from the top left.
    int distances[18 * 8];
    union {
        struct {
            /// The right side of products: see `load_weights`.
            Bfloat16 weights[24 * (18 * 16 + 8)];
            /// Parts of sums: of warps, or of slots of `pool_back`.
            float partial[WARPS * 2 * WIDEST];
        };
        /// Gradient of a layer's weights.
        float gradient[18 * 32 * 9];
        /// The image with a border.
        float pixels[30 * 30];
    };
    /// Sums of this block's image, which the cluster's other blocks read.
    float exchanged[EXCHANGES][2 * WIDEST];
    /// Sums over the group, of the last exchange.
    float totals[2 * WIDEST];
    Norm norms[LAYERS];
    NormBack back;
    float logits[CLASSES];
    float slopes[CLASSES];
};

/// Most shared memory of a block, bytes, from compute capability 9.0 to 10.x.
constexpr int SHARED_BYTES = 227 << 10;
static_assert(sizeof(Bfloat16) > 2 || sizeof(Shared) <= SHARED_BYTES, "a block has too little memory");
