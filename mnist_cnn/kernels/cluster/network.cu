// The network's training step, one image a block, batch norm's group of images a cluster of blocks.
//
// A block keeps all activations of its image in shared memory, from the stem to the loss and back.
// Batch norm needs sums over the group: each block computes those of its image, and after a barrier
// of the cluster adds those of all, in a fixed order. So every run repeats bit for bit. Each image's
// gradients are a row in memory; a second kernel, `update`, adds the rows in order and changes the
// weights. Convolutions are products of matrices, (pixels, taps x inputs) times (taps x inputs,
// outputs), in bfloat16 with sums in float32.
//
// Compiled by NVRTC for compute capability 9.0 and later: other GPUs have no clusters, or too little
// shared memory. tests/mnist_cnn/kernels/cluster compiles the same files for a CPU.

#ifdef __CUDACC__
#include "device.cuh"
#else
#include "emulation.hpp"
#endif
#include "arguments.cuh"
#include "layers.cuh"
#include "products.cuh"
#include "group_norm.cuh"
#include "forward.cuh"
#include "backward.cuh"

constexpr float MOMENTUM = 0.1f;  // of torch.nn.BatchNorm2d
constexpr int COLUMNS = 10;       // of mnist_cnn.augment

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
/// A block changes 32 parameters, one a lane; each of its warps adds every sixteenth row of gradients.
/// One block more does the statistics.
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
