// Batch norm over a group of images, one image a block: what the blocks of a cluster exchange.

#pragma once

#include "arguments.cuh"
#include "products.cuh"

constexpr float EPSILON = 1e-5f;  // of torch.nn.BatchNorm2d

/// What a training step knows of its image.
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
    norm.inverse_deviation[channel] = inverse;
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
    return (y - norm.mean[channel]) * norm.inverse_deviation[channel];
}

/// The gradient of a batch norm's input.
DEVICE float through_norm(const Norm& norm, const NormBack& back, int channel, float y, float dz) {
    const float mean = back.plain[channel] + normalised(norm, channel, y) * back.scaled[channel];
    return norm.factor[channel] * (dz - mean);
}

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
