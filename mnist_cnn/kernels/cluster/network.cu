// The network's training step, one image a block, batch norm's group of images a cluster of blocks.
//
// A block keeps all activations of its image in shared memory, from the stem to the loss and back.
// Batch norm needs sums over the group: each block computes those of its image, and after a barrier
// of the cluster reads those of the others, in order. So every run repeats bit for bit. Each image's
// gradients are a row in memory; a second kernel, `update`, adds the rows in order and changes the
// weights. Convolutions are products of matrices, (pixels, taps x inputs) times (taps x inputs,
// outputs), in bfloat16 with sums in float32.
//
// Compiled by NVRTC for compute capability 9.0 and later: other GPUs have no clusters, or too little
// shared memory. tests/mnist_cnn/kernels/cluster compiles the same file for a CPU.

#ifdef __CUDACC__
#include "device.cuh"
#else
#include "emulation.hpp"
#endif
#include "layers.cuh"

constexpr float EPSILON = 1e-5f;   // of torch.nn.BatchNorm2d
constexpr float MOMENTUM = 0.1f;   // of torch.nn.BatchNorm2d
constexpr int SIDE = 28;
constexpr int COLUMNS = 10;        // of mnist_cnn.augment

/// What a training step reads and writes; shapes with N images of the batch in G groups.
struct StepArguments {
    const uint8* images;       // (all, 28, 28)
    const int64* labels;       // (all,)
    const int64* order;        // indices of the epoch's images
    const float* distortions;  // (images of the epoch, 10)
    const int64* position;     // images of the epoch already trained on
    int64* step;               // steps of the run; one is added
    const float* weights;      // (PARAMETERS,)
    float* losses;             // of the epoch's images
    float* gradients;          // (N, PARAMETERS)
    float* statistics;         // (G, STATISTICS)
    int count;                 // N
    float scale, offset;       // a pixel is value * scale - offset
    float smoothing;
};

/// What an evaluation of N images reads and writes.
struct EvaluationArguments {
    const uint8* images;
    const int64* labels;
    const float* weights;  // (PARAMETERS,)
    const float* running;  // (STATISTICS,)
    float* losses;         // (N,)
    float* correct;        // (N,), 1 or 0
    float scale, offset;
};

/// What an update reads and writes.
struct UpdateArguments {
    float* weights;              // (PARAMETERS,)
    float* velocities;           // (PARAMETERS,)
    float* average;              // (PARAMETERS,)
    float* running;              // (STATISTICS,)
    float* average_running;      // (STATISTICS,)
    const float* gradients;      // (N, PARAMETERS)
    const float* statistics;     // (G, STATISTICS)
    const float* rates;          // learning rate of each step
    const float* shares;         // weight of the network in the average after each step
    const int64* step;           // as the training step left it
    int64* position;             // N is added
    int count, groups;
    int averages;                // whether there is an average
    float momentum, decay;
};

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

// ---- Products of matrices ----

/// Multiply (rows, pairs) by (pairs, COLUMNS), and give each two neighbours of the product to `use`.
///
/// STEPS: pairs, in eights. `left.row(r)` is where a row begins, `left.at(where, pair)` a pair of it;
/// `right(pair, column)` a pair of a column. `use(tile, row, column, first, second)`: tile is that of
/// the columns, known to the compiler.
template <int COLUMNS, int STEPS, class Left, class Right, class Use>
DEVICE void multiply(int rows, const Left& left, const Right& right, const Use& use) {
    constexpr int TILES = (COLUMNS + 7) / 8;
    const int group = lane() / 4, place = lane() % 4;
    for (int tile = warp(); tile < (rows + 15) / 16; tile += WARPS) {
        float sums[TILES][4] = {};
        const int upper = tile * 16 + group, lower = upper + 8;
        // Rows beyond the end are read as the last one, and not used.
        const int up = left.row(smaller(upper, rows - 1)), down = left.row(smaller(lower, rows - 1));
// Four at a time: all at once do not fit in the registers.
#pragma unroll 4
        for (int step = 0; step < STEPS; step++) {
            const int pair = step * 8 + place;
            const Pair a[4] = {left.at(up, pair), left.at(down, pair), left.at(up, pair + 4),
                               left.at(down, pair + 4)};
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const Pair b[2] = {right(pair, t * 8 + group), right(pair + 4, t * 8 + group)};
                multiply_add(sums[t], a, b);
            }
        }
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            const int column = t * 8 + place * 2;
            if (column < COLUMNS && upper < rows) use(t, upper, column, sums[t][0], sums[t][1]);
            if (column < COLUMNS && lower < rows) use(t, lower, column, sums[t][2], sums[t][3]);
        }
    }
}

/// That right side; 8 more places a row spread the rows over the banks.
template <int STEPS>
struct Weights {
    const Half* source;
    DEVICE Pair operator()(int pair, int column) const {
        return load_pair(source + column * (STEPS * 16 + 8) + 2 * pair);
    }
};

/// Left side: CHANNELS numbers of each pixel.
template <class Where, int CHANNELS>
struct Pixels {
    const Half* source;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE Pair at(int where, int pair) const {
        return 2 * pair < CHANNELS ? load_pair(source + where + 2 * pair) : to_pair(0, 0);
    }
};

/// Left side: the same after batch norm and ReLU.
template <class Where, int CHANNELS>
struct Activated {
    const Half* source;
    const Norm& norm;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE Pair at(int where, int pair) const {
        const int channel = 2 * pair;
        if (channel >= CHANNELS) return to_pair(0, 0);
        const Pair y = load_pair(source + where + channel);
        return to_pair(relu(low(y) * norm.factor[channel] + norm.shift[channel]),
                       relu(high(y) * norm.factor[channel + 1] + norm.shift[channel + 1]));
    }
};

/// Left side: the nine pixels that a convolution sees, at `distances`.
template <class Where>
struct Windows {
    const Half* source;
    const int* distances;
    DEVICE int row(int pixel) const { return Where::corner(pixel); }
    DEVICE Pair at(int where, int pair) const { return load_pair(source + where + distances[pair]); }
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
DEVICE void load_weights(Half* target, const float* weights) {
    constexpr int IN = INPUTS[LAYER], OUT = OUTPUTS[LAYER], TAP = TAPS[LAYER];
    constexpr int COLUMNS = BACKWARD ? IN : OUT, OTHERS = BACKWARD ? OUT : IN;
    constexpr int FILLED = TAP * OTHERS, EMPTY = STEPS * 16 - FILLED, LENGTH = STEPS * 16 + 8;
    const float* source = weights + weights_of(LAYER);
    for_each(OUT * IN * TAP, [&](int i) {
        const int output = i / (IN * TAP), input = i / TAP % IN, tap = i % TAP;
        const int column = BACKWARD ? input : output, other = BACKWARD ? output : input;
        target[column * LENGTH + tap * OTHERS + other] = to_half(source[i]);
    });
    // What lies beyond the end meets numbers that are not used, and must not be NaN. Columns beyond
    // the end are not used themselves.
    if constexpr (EMPTY > 0) {
        for_each(COLUMNS * EMPTY, [&](int i) {
            target[i / EMPTY * LENGTH + FILLED + i % EMPTY] = to_half(0);
        });
    }
}

// ---- What a step knows of its image ----

struct Image {
    Shared& shared;
    const StepArguments& arguments;
    int number;         // in the batch
    bool is_there;      // false for blocks of a last group that has fewer images
    int group_images;

    /// The image's row of gradients.
    DEVICE float* gradients() const {
        return arguments.gradients + static_cast<int64>(number) * PARAMETERS;
    }
};

// ---- Sums over a group of images ----

/// Sums of two numbers over a product's rows, by column; each lane has those of its own columns.
template <int COLUMNS>
struct ColumnSums {
    static constexpr int TILES = (COLUMNS + 7) / 8;
    float first[TILES][2] = {}, second[TILES][2] = {};

    DEVICE void add(int tile, int half, float a, float b) {
        first[tile][half] += a;
        second[tile][half] += b;
    }

    /// Write each warp's sums; `sum_over_group` adds them.
    DEVICE void write(float* partial) {
#pragma unroll
        for (int t = 0; t < TILES; t++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float a = first[t][half], b = second[t][half];
                for (int mask = 4; mask < 32; mask *= 2) {
                    a += shuffle_xor(a, mask);
                    b += shuffle_xor(b, mask);
                }
                const int column = t * 8 + 2 * lane() + half;
                if (lane() < 4 && column < COLUMNS) {
                    partial[warp() * 2 * COLUMNS + column] = a;
                    partial[warp() * 2 * COLUMNS + COLUMNS + column] = b;
                }
            }
        }
    }
};

/// Add the parts of an image's 2 * CHANNELS sums, in order, show them to the cluster, and add those of
/// all its images, always in the same order. `keep(i, sum)` is called for each sum of this image.
template <int CHANNELS, int PARTS, class Keep>
DEVICE void sum_over_group(const Image& image, int exchange, const Keep& keep) {
    constexpr int SUMS = 2 * CHANNELS;
    Shared& shared = image.shared;
    block_sync();
    if (thread() < SUMS) {
        float sum = 0;
#pragma unroll
        for (int part = 0; part < PARTS; part++) sum += shared.partial[part * SUMS + thread()];
        sum = image.is_there ? sum : 0;
        shared.exchanged[exchange][thread()] = sum;
        keep(thread(), sum);
    }
    cluster_sync();
    // A lane reads from each block, all at once: to wait for one after the other takes much longer.
    const int rank = thread() % LARGEST_CLUSTER;
#pragma unroll
    for (int first = 0; first < SUMS; first += THREADS / LARGEST_CLUSTER) {
        const int i = first + thread() / LARGEST_CLUSTER;
        const bool is_needed = i < SUMS && rank < cluster_size();
        float sum = is_needed ? read_from_block(&shared.exchanged[exchange][i], rank) : 0;
        for (int mask = LARGEST_CLUSTER / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        if (rank == 0 && i < SUMS) shared.totals[i] = sum;
    }
    block_sync();
}

/// The norm of a channel.
DEVICE void set_norm(Norm& norm, int channel, float mean, float variance, float scale, float shift) {
    const float inverse = 1 / sqrtf(variance + EPSILON);
    norm.mean[channel] = mean;
    norm.deviation_inverse[channel] = inverse;
    norm.factor[channel] = scale * inverse;
    norm.shift[channel] = shift - mean * scale * inverse;
}

/// A layer's batch norm, from the sums of its inputs and of their squares in `shared.partial`.
template <int LAYER>
DEVICE void finish_norm(const Image& image) {
    constexpr int CHANNELS = OUTPUTS[LAYER], PIXELS = SIDES[LAYER] * SIDES[LAYER];
    Shared& shared = image.shared;
    const StepArguments& arguments = image.arguments;
    sum_over_group<CHANNELS, WARPS>(image, LAYER, [](int, float) {});
    if (thread() < CHANNELS) {
        const int channel = thread();
        const float count = static_cast<float>(PIXELS * image.group_images);
        const float mean = shared.totals[channel] / count;
        const float square = shared.totals[CHANNELS + channel] / count;
        float variance = square - mean * mean;
        variance = variance < 0 ? 0 : variance;  // this form keeps NaN
        set_norm(shared.norms[LAYER], channel, mean, variance,
                 arguments.weights[scales_of(LAYER) + channel],
                 arguments.weights[shifts_of(LAYER) + channel]);
        if (block_in_cluster() == 0) {
            float* statistics = arguments.statistics + block() / cluster_size() * STATISTICS;
            statistics[statistics_of(LAYER) + channel] = mean;
            statistics[statistics_of(LAYER) + CHANNELS + channel] = variance * count / (count - 1);
        }
    }
    block_sync();
}

/// The means that a batch norm's backward pass needs, from the sums in `shared.partial`: of dz times
/// the normalised input, and of dz. Those of this image are its gradients of scales and shifts.
template <int LAYER, int PARTS>
DEVICE void finish_back(const Image& image) {
    constexpr int CHANNELS = OUTPUTS[LAYER], PIXELS = SIDES[LAYER] * SIDES[LAYER];
    Shared& shared = image.shared;
    sum_over_group<CHANNELS, PARTS>(image, LAYERS + LAYER, [&](int i, float sum) {
        if (image.is_there) image.gradients()[scales_of(LAYER) + i] = sum;
    });
    if (thread() < CHANNELS) {
        const float count = static_cast<float>(PIXELS * image.group_images);
        shared.back.scaled[thread()] = shared.totals[thread()] / count;
        shared.back.plain[thread()] = shared.totals[CHANNELS + thread()] / count;
    }
    block_sync();
}

/// Whether a ReLU after the norm passes gradients on; also for NaN, as in torch.
DEVICE bool is_alive(const Norm& norm, int channel, float y) {
    return !(y * norm.factor[channel] + norm.shift[channel] <= 0);
}

DEVICE float normalised(const Norm& norm, int channel, float y) {
    return (y - norm.mean[channel]) * norm.deviation_inverse[channel];
}

/// The gradient of a batch norm's input.
DEVICE float through_norm(const Norm& norm, const NormBack& back, int channel, float y, float dz) {
    const float mean = back.plain[channel] + normalised(norm, channel, y) * back.scaled[channel];
    return norm.factor[channel] * (dz - mean);
}

// ---- The image ----

/// One image, distorted as in mnist_cnn.augment by its row of parameters, or as it is.
DEVICE float sample(const uint8* image, const float* row, int pixel) {
    if (row == nullptr) return image[pixel];
    const float middle = (SIDE - 1) / 2.0f;
    // In pixels from the image's centre, with the translation undone.
    const float x = pixel % SIDE - middle - row[6], y = pixel / SIDE - middle - row[7];
    const float xx = row[0] * row[2] - row[1] * row[4], xy = row[0] * row[3] - row[1] * row[5];
    const float yx = row[1] * row[2] + row[0] * row[4], yy = row[1] * row[3] + row[0] * row[5];
    const float from_x = xx * x + xy * y + middle, from_y = yx * x + yy * y + middle;
    const float left = floorf(from_x), top = floorf(from_y);
    float value = 0;
    for (int corner = 0; corner < 4; corner++) {
        const int i = corner / 2, j = corner % 2;
        const float share_y = i ? from_y - top : 1 - (from_y - top);
        const float share_x = j ? from_x - left : 1 - (from_x - left);
        const int at_y = static_cast<int>(top) + i, at_x = static_cast<int>(left) + j;
        const bool is_inside = at_y >= 0 && at_y < SIDE && at_x >= 0 && at_x < SIDE;
        if (is_inside) value += image[at_y * SIDE + at_x] * share_y * share_x;
    }
    return value;
}

/// Zero the activations' borders, and write each pixel's neighbours.
DEVICE void load_image(Shared& shared, const uint8* image, const float* row, float scale,
                       float offset) {
    const auto clear = [](Half* start, int size) {
        for_each(size / 2, [&](int i) { store_pair(start + 2 * i, to_pair(0, 0)); });
    };
    clear(shared.stem, Stem::SIZE);
    clear(shared.y1, Y1::SIZE);
    clear(shared.x1, X1::SIZE);
    clear(shared.y3, Y3::SIZE);
    clear(shared.x2, X2::SIZE);
    clear(shared.y5, Y5::SIZE);
    for_each(30 * 30, [&](int i) {
        const int y = i / 30 - 1, x = i % 30 - 1;
        const bool is_inside = y >= 0 && y < SIDE && x >= 0 && x < SIDE;
        shared.pixels[i] = is_inside ? sample(image, row, y * SIDE + x) * scale - offset : 0;
    });
    block_sync();
    for_each(Patches::PIXELS * 10, [&](int i) {
        const int pixel = i / 10, tap = i % 10;
        const int place = (pixel / SIDE + tap / 3) * 30 + pixel % SIDE + tap % 3;
        shared.patches[i] = to_half(tap < 9 ? shared.pixels[place] : 0);
    });
    block_sync();
}

// ---- Forward ----

/// A layer's outputs by `forward`, and its batch norm by `norm`, which may be known before.
template <int LAYER, class Where, int STEPS, class Left, class Normalise>
DEVICE void convolve(Shared& shared, const float* weights, const Left& left, Half* target,
                     const Normalise& normalise) {
    load_weights<LAYER, STEPS, false>(shared.weights, weights);
    block_sync();
    ColumnSums<OUTPUTS[LAYER]> sums;
    multiply<OUTPUTS[LAYER], STEPS>(
        Where::PIXELS, left, Weights<STEPS>{shared.weights},
        [&](int tile, int pixel, int channel, float first, float second) {
            const Pair y = to_pair(first, second);
            store_pair(target + Where::at(pixel) + channel, y);
            sums.add(tile, 0, low(y), low(y) * low(y));
            sums.add(tile, 1, high(y), high(y) * high(y));
        });
    normalise.template operator()<LAYER>(sums);
}

/// Max pooling by two after a batch norm, ReLU, and the skip connection.
template <class From, class To>
DEVICE void pool(const Half* y, const Norm& norm, const Half* stem, Half* target) {
    for_each(To::PIXELS * 18, [&](int i) {
        const int pixel = i / 18, channel = i % 18;
        const int first = 2 * (pixel / To::SIDE) * From::SIDE + 2 * (pixel % To::SIDE);
        float best = 0;
        for (int k = 0; k < 4; k++) {
            const int at = From::at(first + k / 2 * From::SIDE + k % 2) + channel;
            best = larger(best, to_float(y[at]) * norm.factor[channel] + norm.shift[channel]);
        }
        if (stem != nullptr) best += to_float(stem[Stem::at(first) + channel]);
        target[To::at(pixel) + channel] = to_half(best);
    });
    block_sync();
}

/// The stem's raw outputs are computed again wherever they are needed: that takes one product.
template <class Use>
DEVICE void stem_outputs(const Shared& shared, const Use& use) {
    multiply<18, 1>(Patches::PIXELS, Pixels<Patches, 10>{shared.patches},
                    Weights<1>{shared.stem_weights}, use);
}

/// All layers, up to the logits. `normalise<LAYER>(sums)` finishes a layer's batch norm.
template <class Normalise>
DEVICE void forward(Shared& shared, const float* weights, const Normalise& normalise) {
    load_weights<0, 1, false>(shared.stem_weights, weights);
    block_sync();
    ColumnSums<18> sums;
    stem_outputs(shared, [&](int tile, int, int, float first, float second) {
        sums.add(tile, 0, first, first * first);
        sums.add(tile, 1, second, second * second);
    });
    normalise.template operator()<0>(sums);
    const Norm& norm = shared.norms[0];
    stem_outputs(shared, [&](int, int pixel, int channel, float first, float second) {
        const float a = first * norm.factor[channel] + norm.shift[channel];
        const float b = second * norm.factor[channel + 1] + norm.shift[channel + 1];
        store_pair(shared.stem + Stem::at(pixel) + channel, to_pair(relu(a), relu(b)));
    });
    measure_distances<Stem, 18, 11>(shared.distances, false);
    convolve<1, Y1, 11>(shared, weights, Windows<Stem>{shared.stem, shared.distances}, shared.y1,
                        normalise);
    convolve<2, Y2, 2>(shared, weights, Activated<Y1, 32>{shared.y1, shared.norms[1]}, shared.y2,
                       normalise);
    pool<Y2, X1>(shared.y2, shared.norms[2], shared.stem, shared.x1);
    measure_distances<X1, 18, 11>(shared.distances, false);
    convolve<3, Y3, 11>(shared, weights, Windows<X1>{shared.x1, shared.distances}, shared.y3,
                        normalise);
    convolve<4, Y4, 2>(shared, weights, Activated<Y3, 32>{shared.y3, shared.norms[3]}, shared.y4,
                       normalise);
    pool<Y4, X2>(shared.y4, shared.norms[4], nullptr, shared.x2);
    measure_distances<X2, 18, 11>(shared.distances, false);
    convolve<5, Y5, 11>(shared, weights, Windows<X2>{shared.x2, shared.distances}, shared.y5,
                        normalise);
    load_weights<6, 2, false>(shared.weights, weights);
    block_sync();
    ColumnSums<10> last;
    multiply<10, 2>(Y6::PIXELS, Activated<Y5, 32>{shared.y5, shared.norms[5]},
                    Weights<2>{shared.weights},
                    [&](int tile, int pixel, int channel, float first, float second) {
                        shared.y6[Y6::at(pixel) + channel] = first;
                        shared.y6[Y6::at(pixel) + channel + 1] = second;
                        last.add(tile, 0, first, first * first);
                        last.add(tile, 1, second, second * second);
                    });
    normalise.template operator()<6>(last);
    if (warp() < CLASSES) {
        const int channel = warp();
        float sum = 0;
        for (int pixel = lane(); pixel < Y6::PIXELS; pixel += 32) {
            const float y = shared.y6[Y6::at(pixel) + channel];
            const Norm& norm = shared.norms[6];
            sum += relu(y * norm.factor[channel] + norm.shift[channel]);
        }
        sum = warp_sum(sum);
        if (lane() == 0) shared.logits[channel] = sum / Y6::PIXELS;
    }
    block_sync();
}

/// The largest logit, and the sum of all exponentials relative to it.
DEVICE float sum_of_exponentials(const float* logits, float& largest) {
    largest = logits[0];
    for (int c = 1; c < CLASSES; c++) largest = larger(largest, logits[c]);
    float total = 0;
    for (int c = 0; c < CLASSES; c++) total += expf(logits[c] - largest);
    return total;
}

// ---- Backward ----

/// Gradient of a layer's weights: for each output and column the sum over pixels of dy times x.
///
/// EACH: tiles of columns of a warp, which read dy once for all of them. PARTS: the pixels are shared
/// among so many warps, which add to the sum one after another. `left.row(pixel)` is where a pixel of
/// dy begins; `right.row(pixel) + right.column(column)` is the place of a number of x, and
/// `right.value(place, column)` that number. `place(output, column)` is its index in torch's order.
template <int LAYER, int COLUMNS, int EACH, int PARTS, class Left, class Right, class Place>
DEVICE void weight_gradient(const Image& image, const Left& left, const Right& right,
                            const Place& place) {
    constexpr int OUT = OUTPUTS[LAYER], PIXELS = SIDES[LAYER] * SIDES[LAYER];
    constexpr int OUT_TILES = (OUT + 15) / 16, TILES = (COLUMNS + 7) / 8;
    constexpr int STEPS = (PIXELS + 15) / 16, STEPS_EACH = (STEPS + PARTS - 1) / PARTS;
    constexpr int GROUPS = (TILES + EACH - 1) / EACH;
    static_assert(GROUPS * PARTS <= WARPS);
    Shared& shared = image.shared;
    const int group = lane() / 4, pair = lane() % 4 * 2;
    const int part = warp() / GROUPS, first = warp() % GROUPS * EACH;
    const Half zero = to_half(0);
    float sums[OUT_TILES][EACH][4] = {};
    block_sync();
    if (part < PARTS) {
        const int end = smaller(STEPS, (part + 1) * STEPS_EACH);
#pragma unroll 1
        for (int step = part * STEPS_EACH; step < end; step++) {
            bool is_inside[4];
            int left_rows[4], right_rows[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int pixel = step * 16 + pair + k / 2 * 8 + k % 2;
                is_inside[k] = pixel < PIXELS;
                left_rows[k] = left.row(smaller(pixel, PIXELS - 1));
                right_rows[k] = right.row(smaller(pixel, PIXELS - 1));
            }
            Pair a[OUT_TILES][4];
#pragma unroll
            for (int t = 0; t < OUT_TILES; t++) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const int output = t * 16 + group + k % 2 * 8, pixel = k / 2 * 2;
                    const auto value = [&](int p) {
                        return is_inside[p] && output < OUT ? left.source[left_rows[p] + output] : zero;
                    };
                    a[t][k] = join(value(pixel), value(pixel + 1));
                }
            }
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                // Columns beyond the end are read as the last one, and not used.
                const int column = smaller((first + e) * 8 + group, COLUMNS - 1);
                const int distance = right.column(column);
                const auto value = [&](int p) { return right.value(right_rows[p] + distance, column); };
                const Pair b[2] = {join(value(0), value(1)), join(value(2), value(3))};
#pragma unroll
                for (int t = 0; t < OUT_TILES; t++) multiply_add(sums[t][e], a[t], b);
            }
        }
    }
    for (int turn = 0; turn < PARTS; turn++) {
        if (part == turn) {
#pragma unroll
            for (int t = 0; t < OUT_TILES; t++) {
#pragma unroll
                for (int e = 0; e < EACH; e++) {
#pragma unroll
                    for (int k = 0; k < 4; k++) {
                        const int output = t * 16 + group + k / 2 * 8;
                        const int column = (first + e) * 8 + pair + k % 2;
                        if (output >= OUT || column >= COLUMNS) continue;
                        float& sum = shared.gradient[place(output, column)];
                        sum = (turn == 0 ? 0 : sum) + sums[t][e][k];
                    }
                }
            }
        }
        block_sync();
    }
    if (image.is_there) {
        float* target = image.gradients() + weights_of(LAYER);
        for_each(OUT * COLUMNS, [&](int i) { target[i] = shared.gradient[i]; });
    }
    block_sync();
}

/// Right side of such a gradient: the nine pixels that a convolution sees.
template <class Where, int CHANNELS>
struct WindowColumns {
    const Half* source;
    DEVICE int row(int pixel) const { return Where::corner(pixel); }
    DEVICE int column(int n) const { return Where::tap(n / CHANNELS) + n % CHANNELS; }
    DEVICE Half value(int place, int) const { return source[place]; }
};

/// Right side of such a gradient: the channels of a pixel, as they are.
template <class Where>
struct PixelColumns {
    const Half* source;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE int column(int n) const { return n; }
    DEVICE Half value(int place, int) const { return source[place]; }
};

/// Right side of such a gradient: the same after batch norm and ReLU.
template <class Where>
struct ActivatedColumns {
    const Half* source;
    const Norm& norm;
    DEVICE int row(int pixel) const { return Where::at(pixel); }
    DEVICE int column(int n) const { return n; }
    DEVICE Half value(int place, int n) const {
        return to_half(relu(to_float(source[place]) * norm.factor[n] + norm.shift[n]));
    }
};

/// The gradient of a 3 x 3 convolution's weights; x with its border.
template <int LAYER, class WhereY, class WhereX, int PARTS>
DEVICE void convolution_gradient(const Image& image, const Half* dy, const Half* x) {
    constexpr int IN = INPUTS[LAYER];
    // More tiles at a time do not fit in the registers.
    weight_gradient<LAYER, 9 * IN, 5, PARTS>(
        image, PixelColumns<WhereY>{dy}, WindowColumns<WhereX, IN>{x},
        [](int output, int column) { return (output * IN + column % IN) * 9 + column / IN; });
}

/// The gradient of a 1 x 1 convolution's weights; it reads `y` after its batch norm and ReLU.
template <int LAYER, class WhereDy, class WhereY, int EACH, int PARTS>
DEVICE void pointwise_gradient(const Image& image, const Half* dy, const Half* y) {
    weight_gradient<LAYER, INPUTS[LAYER], EACH, PARTS>(
        image, PixelColumns<WhereDy>{dy},
        ActivatedColumns<WhereY>{y, image.shared.norms[LAYER - 1]},
        [](int output, int column) { return output * INPUTS[LAYER] + column; });
}

/// Through a 1 x 1 convolution, a ReLU and a batch norm: `y` becomes its gradient.
template <int LAYER, class WhereDy, class WhereY, int STEPS>
DEVICE void pointwise_back(const Image& image, const Half* dy, Half* y) {
    constexpr int CHANNELS = INPUTS[LAYER];
    Shared& shared = image.shared;
    const Norm& norm = shared.norms[LAYER - 1];
    load_weights<LAYER, STEPS, true>(shared.weights, image.arguments.weights);
    block_sync();
    const auto run = [&](const auto& use) {
        multiply<CHANNELS, STEPS>(
            WhereY::PIXELS, Pixels<WhereDy, OUTPUTS[LAYER]>{dy}, Weights<STEPS>{shared.weights},
            [&](int tile, int pixel, int c, float first, float second) {
                Half* place = y + WhereY::at(pixel) + c;
                const Pair pair = load_pair(place);
                const float a = low(pair), b = high(pair);
                use(tile, place, c, a, is_alive(norm, c, a) ? first : 0.0f, b,
                    is_alive(norm, c + 1, b) ? second : 0.0f);
            });
    };
    ColumnSums<CHANNELS> sums;
    run([&](int tile, Half*, int c, float a, float da, float b, float db) {
        sums.add(tile, 0, da * normalised(norm, c, a), da);
        sums.add(tile, 1, db * normalised(norm, c + 1, b), db);
    });
    sums.write(shared.partial);
    finish_back<LAYER - 1, WARPS>(image);
    // The product once more: it takes less than the memory that would keep it.
    run([&](int, Half* place, int c, float a, float da, float b, float db) {
        store_pair(place, to_pair(through_norm(norm, shared.back, c, a, da),
                                  through_norm(norm, shared.back, c + 1, b, db)));
    });
    block_sync();
}

/// Gradient of a 3 x 3 convolution's inputs, all (pixels, 18).
template <int LAYER, class Where>
DEVICE void convolution_back(const Image& image, const Half* dy, Half* dx) {
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
DEVICE void pool_back(const Image& image, const Half* dx, Half* y) {
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
            y[Where::at(first + k / 2 * Where::SIDE + k % 2) + channel] = to_half(dy);
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
        shared.dy6[i] = to_half(through_norm(norm, shared.back, channel, y, dz));
    });
    block_sync();
}

/// Through the first 3 x 3 convolution, the skip connection and the stem.
///
/// `dz` (pixels, 18) is memory that nobody needs any more.
DEVICE void stem_back(const Image& image, const Half* dx1, Half* dz) {
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
    Half* dx1 = shared.y4;
    convolution_back<3, Y3>(image, shared.y3, dx1);
    pool_back<2, Y2>(image, dx1, shared.y2);
    pointwise_gradient<2, Y2, Y1, 2, 8>(image, shared.y2, shared.y1);
    pointwise_back<2, Y2, Y1, 2>(image, shared.y2, shared.y1);
    convolution_gradient<1, Y1, Stem, 3>(image, shared.y1, shared.stem);
    stem_back(image, dx1, shared.y2);
}

// ---- Kernels ----

/// Finishes batch norms in training: statistics of the group.
struct GroupNorms {
    const Image& image;
    template <int LAYER, class Sums>
    DEVICE void operator()(Sums& sums) const {
        sums.write(image.shared.partial);
        finish_norm<LAYER>(image);
    }
};

/// In an evaluation all batch norms are known before.
struct KnownNorms {
    template <int LAYER, class Sums>
    DEVICE void operator()(Sums&) const {
        block_sync();
    }
};

/// Gradients of a batch; a block an image, a cluster a group, so many clusters as there are groups.
KERNEL(train_step, StepArguments) {
    Shared& shared = shared_memory<Shared>();
    const int size = cluster_size(), number = block();
    const int group_images = smaller(size, arguments.count - number / size * size);
    const Image image{shared, arguments, number, number < arguments.count, group_images};
    // Blocks without an image take the first one, and are not counted.
    const int64 place = *arguments.position + (image.is_there ? number : 0);
    const uint8* pixels = arguments.images + arguments.order[place] * SIDE * SIDE;
    load_image(shared, pixels, arguments.distortions + place * COLUMNS, arguments.scale,
               arguments.offset);
    forward(shared, arguments.weights, GroupNorms{image});
    loss(image);
    backward(image);
    // The update needs it, and no block of this kernel does.
    if (number == 0 && thread() == 0) *arguments.step += 1;
    // No block ends while another may read its sums.
    cluster_sync();
}

/// One evaluation image a block.
KERNEL(evaluate, EvaluationArguments) {
    Shared& shared = shared_memory<Shared>();
    load_image(shared, arguments.images + static_cast<int64>(block()) * SIDE * SIDE, nullptr,
               arguments.scale, arguments.offset);
    for (int layer = 0; layer < LAYERS; layer++) {
        const int channel = thread();
        if (channel >= OUTPUTS[layer]) continue;
        const float* running = arguments.running + statistics_of(layer);
        set_norm(shared.norms[layer], channel, running[channel], running[OUTPUTS[layer] + channel],
                 arguments.weights[scales_of(layer) + channel],
                 arguments.weights[shifts_of(layer) + channel]);
    }
    forward(shared, arguments.weights, KnownNorms{});
    if (thread() == 0) {
        float largest;
        const float total = sum_of_exponentials(shared.logits, largest);
        const int label = static_cast<int>(arguments.labels[block()]);
        int chosen = 0;
        for (int c = 1; c < CLASSES; c++) {
            if (shared.logits[c] > shared.logits[chosen]) chosen = c;
        }
        arguments.losses[block()] = logf(total) - (shared.logits[label] - largest);
        arguments.correct[block()] = chosen == label;
    }
}

/// SGD with Nesterov momentum and weight decay, the average, batch norm's running statistics.
///
/// A warp of threads takes a row each; 32 parameters a block. One block more does the statistics.
KERNEL(update, UpdateArguments) {
    struct Sums {
        float rows[WARPS][32];
    };
    float(&rows)[WARPS][32] = shared_memory<Sums>().rows;
    const int64 now = *arguments.step - 1;  // the training step has counted it
    const float share = arguments.shares[now];
    if (block() == (PARAMETERS + 31) / 32) {
        for_each(STATISTICS, [&](int i) {
            float running = arguments.running[i];
            for (int group = 0; group < arguments.groups; group++) {
                running += MOMENTUM * (arguments.statistics[group * STATISTICS + i] - running);
            }
            arguments.running[i] = running;
            float& average = arguments.average_running[i];
            if (arguments.averages) average += share * (running - average);
        });
        if (thread() == 0) *arguments.position += arguments.count;
        return;
    }
    const int i = block() * 32 + lane();
    float sum = 0;
    if (i < PARAMETERS) {
        for (int row = warp(); row < arguments.count; row += WARPS) {
            sum += arguments.gradients[static_cast<int64>(row) * PARAMETERS + i];
        }
    }
    rows[warp()][lane()] = sum;
    block_sync();
    if (warp() > 0 || i >= PARAMETERS) return;
    float weight = arguments.weights[i], slope = arguments.decay * weight;
    for (int k = 0; k < WARPS; k++) slope += rows[k][lane()];
    const float velocity = arguments.momentum * arguments.velocities[i] + slope;
    weight -= arguments.rates[now] * (slope + arguments.momentum * velocity);
    arguments.velocities[i] = velocity;
    arguments.weights[i] = weight;
    float& average = arguments.average[i];
    if (arguments.averages) average += share * (weight - average);
}
