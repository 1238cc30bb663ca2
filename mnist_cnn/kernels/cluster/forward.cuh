// From the image to the logits.

#pragma once

#include "products.cuh"

constexpr int SIDE = 28;

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
    const auto clear = [](Bfloat16* start, int size) {
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
        shared.patches[i] = to_bfloat16(tap < 9 ? shared.pixels[place] : 0);
    });
    block_sync();
}

/// A layer's outputs, and its batch norm by `normalise`: from them, or known before.
template <int LAYER, class Where, int STEPS, class Left, class Normalise>
DEVICE void convolve(Shared& shared, const float* weights, const Left& left, Bfloat16* target,
                     const Normalise& normalise) {
    load_weights<LAYER, STEPS, false>(shared.weights, weights);
    block_sync();
    ColumnSums<OUTPUTS[LAYER]> sums;
    multiply<OUTPUTS[LAYER], STEPS>(
        Where::PIXELS, left, Weights<STEPS>{shared.weights},
        [&](int tile, int pixel, int channel, float first, float second) {
            const Bfloat16Pair y = to_pair(first, second);
            store_pair(target + Where::at(pixel) + channel, y);
            sums.add(tile, 0, low(y), low(y) * low(y));
            sums.add(tile, 1, high(y), high(y) * high(y));
        });
    normalise.template operator()<LAYER>(sums);
}

/// Max pooling by two after a batch norm, ReLU, and the skip connection.
template <class From, class To>
DEVICE void pool(const Bfloat16* y, const Norm& norm, const Bfloat16* stem, Bfloat16* target) {
    for_each(To::PIXELS * 18, [&](int i) {
        const int pixel = i / 18, channel = i % 18;
        const int first = 2 * (pixel / To::SIDE) * From::SIDE + 2 * (pixel % To::SIDE);
        float best = 0;
        for (int k = 0; k < 4; k++) {
            const int at = From::at(first + k / 2 * From::SIDE + k % 2) + channel;
            best = larger(best, to_float(y[at]) * norm.factor[channel] + norm.shift[channel]);
        }
        if (stem != nullptr) best += to_float(stem[Stem::at(first) + channel]);
        target[To::at(pixel) + channel] = to_bfloat16(best);
    });
    block_sync();
}

/// The stem's raw outputs are computed again wherever they are needed: that takes one product.
template <class Use>
DEVICE void stem_outputs(const Shared& shared, const Use& use) {
    multiply<18, 1>(Patches::PIXELS, Pixels<Patches, 10>{shared.patches},
                    Weights<1>{shared.stem_weights}, use);
}

/// The stem, after batch norm and ReLU.
template <class Normalise>
DEVICE void stem_forward(Shared& shared, const float* weights, const Normalise& normalise) {
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
}

/// The classifier and the mean of its outputs after batch norm and ReLU: the logits.
template <class Normalise>
DEVICE void classify(Shared& shared, const float* weights, const Normalise& normalise) {
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

/// All layers, up to the logits. `normalise<LAYER>(sums)` finishes a layer's batch norm.
template <class Normalise>
DEVICE void forward(Shared& shared, const float* weights, const Normalise& normalise) {
    stem_forward(shared, weights, normalise);
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
    classify(shared, weights, normalise);
}

/// The largest logit, and the sum of all exponentials relative to it.
DEVICE float sum_of_exponentials(const float* logits, float& largest) {
    largest = logits[0];
    for (int c = 1; c < CLASSES; c++) largest = larger(largest, logits[c]);
    float total = 0;
    for (int c = 0; c < CLASSES; c++) total += expf(logits[c] - largest);
    return total;
}
