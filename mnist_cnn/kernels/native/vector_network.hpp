// The step on vectors of pixels, for every instruction set: written over the functions of one of the
// vector_*.hpp, which is included before. Files that include this have their own copy of all.
#pragma once

#include <memory>
#include <vector>

#include "convolution.hpp"
#include "network.hpp"
#include "pooling.hpp"
#include "winograd.hpp"

namespace native {
namespace {

// Pairs per image of raw convolution outputs, and of the gradients of activations; the latter are on
// the pooled grid for the transitions.
constexpr int RAW[LAYERS] = {9 * G28::FLAT, 16 * G28::FLAT, 9 * G28::FLAT, 16 * G14::FLAT,
                             9 * G14::FLAT, 16 * G7::FLAT,  5 * G7::FLAT};
constexpr int GRADIENT[LAYERS] = {9 * G28::FLAT, 16 * G28::FLAT, 9 * G14::FLAT, 16 * G14::FLAT,
                                  9 * G7::FLAT,  16 * G7::FLAT,  5 * G7::FLAT};

inline void write(u32* to, float a, float b) { *to = pair_bf16(a, b); }
inline void write(float* to, float a, float) { *to = a; }
constexpr int PER_ITEM = PAIRS ? 2 : 1;  // channels of an item

// The weights as `convolve` reads them: [output block][tap][input plane][output of the block].
template <class G, int TAPS, int IN, int OUT, class Weight>
void pack_weights(Item* to, Weight weight) {
  constexpr OutputBlocks at_once = outputs_at_once(OUT, G::VECTORS);
  for (int o = 0; o < OUT;) {
    const int end = o + (o < OUT - at_once.last_channels ? at_once.size : at_once.last_size);
    for (int t = 0; t < TAPS; t++)
      for (int c = 0; c < IN * PER_ITEM; c += PER_ITEM)
        for (int k = o; k < end; k++) write(to++, weight(k, c, t), PAIRS ? weight(k, c + 1, t) : 0);
    o = end;
  }
}

// How many weights `convolve3x3` multiplies for an input and an output channel.
constexpr int TAPS3X3 = WINOGRAD ? PRODUCTS * 3 : 9;
// `pack_weights` of a 3x3 kernel, for `convolve3x3`.
template <class G, int IN, int OUT, class Weight>
void pack_weights3x3(Item* to, Weight weight) {
  if constexpr (WINOGRAD)
    for (int m = 0; m < PRODUCTS; m++)
      pack_weights<Tiles<G>, 3, IN, OUT>(to + m * 3 * IN * OUT, [=](int o, int i, int tap) {
        const float* factors = WEIGHT_TRANSFORM[m];
        float sum = 0;
        for (int row = 0; row < 3; row++) sum += factors[row] * weight(o, i, 3 * row + tap);
        return sum;
      });
  else
    pack_weights<G, 9, IN, OUT>(to, weight);
}

// Where to_plain writes 18 channels; float32 planes are plain already.
template <class G>
struct PlainPlanes {
  Buffer<u16> buffer{PAIRS ? size_t(18) * G::PLANE + GUARD : 0};
  u16* const at = buffer.start + (PAIRS ? G::LEAD : 0);
};

// Memory of one thread: one image's activations and gradients, named by grid and channels. The zeros
// around the images are never written.
struct Worker {
  Planes<G28, 4> pixel_pairs;
  Planes<G28, 18> a28_18, d28_18;
  Planes<G28, 32> a28_32, d28_32;
  Planes<G14, 18> a14_18, d14_18;
  Planes<G14, 32> a14_32, d14_32;
  Planes<G7, 18> a7_18;
  Planes<G7, 32> a7_32, d7_32;
  Planes<G7, 10> d7_10;
  PlainPlanes<G28> plain28;
  PlainPlanes<G14> plain14;
  PlainPlanes<G7> plain7;
  TileMemory<G28> tiles28;
  TileMemory<G14> tiles14;
  TileMemory<G7> tiles7;
  Buffer<Item> transposed{size_t(G28::FLAT) * 32};
};

// A layer's weight gradient is [input and tap][32 outputs], for 1x1 kernels [output][32 inputs].
constexpr int WEIGHT_SUMS[LAYERS] = {9 * 32, 162 * 32, 18 * 32, 162 * 32, 18 * 32, 162 * 32, 10 * 32};
constexpr int MOST_WEIGHT_SUMS = 162 * 32;

// Two sums per channel, lane by lane.
constexpr int SUMS = 32 * 2 * WIDTH;

// The weights as `convolve` reads them, forward and for the gradients of inputs.
struct Packed {
  static constexpr int C10 = planes(10), C18 = planes(18), C32 = planes(32);
  Item stem[9 * 18], block1[TAPS3X3 * C18 * 32], transition1[C32 * 18], block2[TAPS3X3 * C18 * 32],
      transition2[C32 * 18], block3[TAPS3X3 * C18 * 32], classifier[C32 * 10];
  Item block1_back[TAPS3X3 * C32 * 18], transition1_back[C18 * 32], block2_back[TAPS3X3 * C32 * 18],
      transition2_back[C18 * 32], block3_back[TAPS3X3 * C32 * 18], classifier_back[C10 * 32];
};

class VectorNetwork : public Network {
 public:
  explicit VectorNetwork(int capacity, Packed* packed = nullptr)
      : Network(capacity, SUMS, MOST_WEIGHT_SUMS),
        own_packed_(packed ? nullptr : new Packed),
        packed_(packed ? packed : own_packed_.get()),
        skip_gradient_(size_t(capacity) * 9 * G14::FLAT + GUARD),
        plain_pixels_(size_t(capacity) * G28::PLANE + GUARD) {
    for (int l = 0; l < LAYERS; l++) {
      raw_[l] = static_cast<u32*>(zeroed((size_t(capacity) * RAW[l] + GUARD) * sizeof(u32)));
      gradient_[l] = static_cast<u32*>(zeroed((size_t(capacity) * GRADIENT[l] + GUARD) * sizeof(u32)));
    }
  }
  ~VectorNetwork() override {
    for (int l = 0; l < LAYERS; l++) std::free(raw_[l]), std::free(gradient_[l]);
  }

  Network* sibling(int capacity) const override { return new VectorNetwork(capacity, packed_); }

  void kept(int layer, int i, uint8_t* to) const override {
    const Dropout dropout = this->dropout(layer, i);
    const bool wide = layer <= BLOCK1, middle = layer == BLOCK2;
    const int side = wide ? 28 : middle ? 14 : 7;
    const int pitch = wide ? G28::PITCH : middle ? G14::PITCH : G7::PITCH;
    for (int c = 0; c < CHANNELS[layer]; c++)
      for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
          Floats low = fill(1), high = fill(1);
          drop(dropout, c / 2, y * pitch + x, low, high);
          float values[WIDTH];
          store(values, c % 2 ? high : low);
          *to++ = values[0] != 0;
        }
  }

  int slot(int, int channel) const override { return channel; }

  int weight_floats(int layer) const override { return WEIGHT_SUMS[layer]; }

  int place(int layer, int output, int input, int tap) const override {
    const bool by_output = layer == TRANSITION1 || layer == TRANSITION2 || layer == CLASSIFIER;
    if (by_output) return output * 32 + input;
    return row_of(layer == STEM ? 1 : 18, input, tap) * 32 + output;
  }

  void pack(const Parameters& parameters) override {
    const auto& w = parameters.weights;
    Packed& to = *packed_;
    // torch's [output][input][tap]; for gradients of inputs, inputs and outputs swap and the taps reverse.
    auto forward = [](const float* k, int inputs, int taps) {
      return [=](int o, int i, int t) { return k[(o * inputs + i) * taps + t]; };
    };
    auto backward = [](const float* k, int inputs, int taps) {
      return [=](int i, int o, int t) { return k[(o * inputs + i) * taps + taps - 1 - t]; };
    };
    const float* stem = w[STEM];
    if constexpr (PAIRS)
      // Two planes of pairs of neighbouring pixels, by rows: see `convolve_stem`.
      pack_weights<G28, 3, 2, 18>(to.stem, [=](int o, int column, int row) {
        return column < 3 ? stem[o * 9 + row * 3 + column] : 0;
      });
    else
      pack_weights<G28, 9, 1, 18>(to.stem, forward(stem, 1, 9));
    pack_weights3x3<G28, Packed::C18, 32>(to.block1, forward(w[BLOCK1], 18, 9));
    pack_weights<G28, 1, Packed::C32, 18>(to.transition1, forward(w[TRANSITION1], 32, 1));
    pack_weights3x3<G14, Packed::C18, 32>(to.block2, forward(w[BLOCK2], 18, 9));
    pack_weights<G14, 1, Packed::C32, 18>(to.transition2, forward(w[TRANSITION2], 32, 1));
    pack_weights3x3<G7, Packed::C18, 32>(to.block3, forward(w[BLOCK3], 18, 9));
    pack_weights<G7, 1, Packed::C32, 10>(to.classifier, forward(w[CLASSIFIER], 32, 1));
    pack_weights3x3<G28, Packed::C32, 18>(to.block1_back, backward(w[BLOCK1], 18, 9));
    pack_weights<G28, 1, Packed::C18, 32>(to.transition1_back, backward(w[TRANSITION1], 32, 1));
    pack_weights3x3<G14, Packed::C32, 18>(to.block2_back, backward(w[BLOCK2], 18, 9));
    pack_weights<G14, 1, Packed::C18, 32>(to.transition2_back, backward(w[TRANSITION2], 32, 1));
    pack_weights3x3<G7, Packed::C32, 18>(to.block3_back, backward(w[BLOCK3], 18, 9));
    pack_weights<G7, 1, Packed::C10, 32>(to.classifier_back, backward(w[CLASSIFIER], 32, 1));
  }

 private:
  static constexpr int C10 = Packed::C10, C18 = Packed::C18, C32 = Packed::C32;

  u32* raw(int layer, int i) { return raw_[layer] + size_t(i) * RAW[layer]; }
  u32* gradient(int layer, int i) { return gradient_[layer] + size_t(i) * GRADIENT[layer]; }
  u32* skip_gradient(int i) { return skip_gradient_.start + size_t(i) * 9 * G14::FLAT; }
  Plain* plain_pixels(int i) { return plain_pixels_.start + size_t(i) * G28::PLANE + G28::LEAD; }

  void grow_workers(int threads) override {
    while (int(workers_.size()) < threads) workers_.push_back(std::make_unique<Worker>());
  }

  double sum(const float* sums, int slot, int which) const override {
    const float* from = sums + (2 * slot + which) * WIDTH;
    double lanes[WIDTH];
    for (int k = 0; k < WIDTH; k++) lanes[k] = double(from[k]);
    return total(lanes);
  }
  // By halves, so that the order does not depend on the compiler.
  template <class T>
  static T total(T (&lanes)[WIDTH]) {
    for (int half = WIDTH / 2; half > 0; half /= 2)
      for (int k = 0; k < half; k++) lanes[k] += lanes[k + half];
    return lanes[0];
  }

  void add(const float* from, int count, float* to) const override {
    for (int k = 0; k < count; k += WIDTH) store(to + k, load(to + k) + load(from + k));
  }

  void read_image(const float* image, int i) {
    Plain* plain = plain_pixels(i);
    for (int y = 0; y < 28; y++) convert(image + y * 28, plain + y * G28::PITCH);
  }
  static void convert(const float* row, u16* to) {
    for (int x = 0; x < 28; x++) to[x] = u16(to_bf16(row[x]));
  }
  static void convert(const float* row, float* to) { std::memcpy(to, row, 28 * sizeof(float)); }

  // The stem has one input channel. Where items are pairs, these are neighbouring pixels, (x[p - 1],
  // x[p]) and (x[p + 1], 0), and its taps are the three rows.
  template <bool STATS>
  void convolve_stem(u32* pairs, const u16* plain, u32* y, float* sums) {
    // One row before the image and one row after it.
    for (int p = -16; p < G28::FLAT + 32; p++) {
      pairs[p] = plain[p - 1] | u32(plain[p]) << 16;
      pairs[p + G28::PLANE] = plain[p + 1];
    }
    convolve<G28, Column<G28>, 2, 18>(pairs, packed_->stem, ToPairs<G28, STATS>{y, sums});
  }
  template <bool STATS>
  void convolve_stem(float*, const float* plain, u32* y, float* sums) {
    convolve<G28, Square<G28>, 1, 18>(plain, packed_->stem, ToPairs<G28, STATS>{y, sums});
  }

  // The input of block 2: transition 1 pooled, plus the stem's output at every second pixel.
  void read_block2(Worker& worker, int i) {
    pool_activate<G28, G14, 9>(raw(TRANSITION1, i), norm_[TRANSITION1], worker.a14_18.at);
    add_subsampled(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a14_18.at);
  }

  void convolve_layer(int thread, int layer, int i, const float* image, float* sums) override {
    Worker& worker = *workers_[thread];
    if (sums)
      convolve_layer<true>(worker, layer, i, image, sums);
    else
      convolve_layer<false>(worker, layer, i, image, nullptr);
  }
  template <bool STATS>
  void convolve_layer(Worker& worker, int layer, int i, const float* image, float* sums) {
    u32* y = raw(layer, i);
    switch (layer) {
      case STEM:
        read_image(image, i);
        return convolve_stem<STATS>(worker.pixel_pairs.at, plain_pixels(i), y, sums);
      case BLOCK1:
        activate<G28, 9>(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a28_18.at);
        return convolve3x3<G28, C18, 32, STATS>(worker.a28_18.at, packed_->block1, worker.tiles28, y, sums);
      case TRANSITION1:
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), worker.a28_32.at);
        return convolve<G28, Point, C32, 18>(worker.a28_32.at, packed_->transition1, ToPairs<G28, STATS>{y, sums});
      case BLOCK2:
        read_block2(worker, i);
        return convolve3x3<G14, C18, 32, STATS>(worker.a14_18.at, packed_->block2, worker.tiles14, y, sums);
      case TRANSITION2:
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), worker.a14_32.at);
        return convolve<G14, Point, C32, 18>(worker.a14_32.at, packed_->transition2, ToPairs<G14, STATS>{y, sums});
      case BLOCK3:
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], worker.a7_18.at);
        return convolve3x3<G7, C18, 32, STATS>(worker.a7_18.at, packed_->block3, worker.tiles7, y, sums);
      case CLASSIFIER:
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), worker.a7_32.at);
        return convolve<G7, Point, C32, 10>(worker.a7_32.at, packed_->classifier, ToPairs<G7, STATS>{y, sums});
    }
  }

  void backward_layer(int thread, int layer, int i, float* sums, float* weight_sums) override {
    Worker& worker = *workers_[thread];
    const u32* d = gradient(layer, i);
    const u32* y = raw(layer, i);
    const Norm& norm = norm_[layer];
    Item* t = worker.transposed.start;
    switch (layer) {
      case CLASSIFIER: {
        through_norm<G7, 5>(d, y, norm, worker.d7_10.at);
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), worker.a7_32.at);
        const Plain* plain = to_plain<G7, 10>(worker.d7_10.at, worker.plain7.at);
        to_transposed<G7, 32>(worker.a7_32.at, t);
        weight_gradient<G7, 10, ByChannel<G7>>(t, plain, weight_sums);
        u32* to = gradient(BLOCK3, i);
        convolve<G7, Point, C10, 32>(worker.d7_10.at, packed_->classifier_back, ToPairs<G7, false>{to, nullptr});
        return gate<G7, 16>(to, raw(BLOCK3, i), worker.a7_32.at, dropout(BLOCK3, i), sums);
      }
      case BLOCK3: {
        through_norm<G7, 16>(d, y, norm, worker.d7_32.at);
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], worker.a7_18.at);
        weight_gradient3x3<G7>(worker.a7_18.at, worker.d7_32.at, worker.plain7.at, worker.tiles7, t,
                                weight_sums);
        u32* to = gradient(TRANSITION2, i);
        convolve3x3<G7, C32, 18, false>(worker.d7_32.at, packed_->block3_back, worker.tiles7, to, nullptr);
        return pool_gate<G14, G7, 9>(to, raw(TRANSITION2, i), norm_[TRANSITION2], sums);
      }
      case TRANSITION2: {
        pool_through_norm<G14, G7, 9>(d, y, norm, worker.d14_18.at);
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), worker.a14_32.at);
        const Plain* plain = to_plain<G14, 18>(worker.d14_18.at, worker.plain14.at);
        to_transposed<G14, 32>(worker.a14_32.at, t);
        weight_gradient<G14, 18, ByChannel<G14>>(t, plain, weight_sums);
        u32* to = gradient(BLOCK2, i);
        convolve<G14, Point, C18, 32>(worker.d14_18.at, packed_->transition2_back, ToPairs<G14, false>{to, nullptr});
        return gate<G14, 16>(to, raw(BLOCK2, i), worker.a14_32.at, dropout(BLOCK2, i), sums);
      }
      case BLOCK2: {
        through_norm<G14, 16>(d, y, norm, worker.d14_32.at);
        read_block2(worker, i);
        weight_gradient3x3<G14>(worker.a14_18.at, worker.d14_32.at, worker.plain14.at, worker.tiles14, t,
                                weight_sums);
        u32* to = gradient(TRANSITION1, i);
        convolve3x3<G14, C32, 18, false>(worker.d14_32.at, packed_->block2_back, worker.tiles14, to, nullptr);
        std::memcpy(skip_gradient(i), to, 9 * G14::FLAT * sizeof(u32));
        return pool_gate<G28, G14, 9>(to, raw(TRANSITION1, i), norm_[TRANSITION1], sums);
      }
      case TRANSITION1: {
        pool_through_norm<G28, G14, 9>(d, y, norm, worker.d28_18.at);
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), worker.a28_32.at);
        const Plain* plain = to_plain<G28, 18>(worker.d28_18.at, worker.plain28.at);
        to_transposed<G28, 32>(worker.a28_32.at, t);
        weight_gradient<G28, 18, ByChannel<G28>>(t, plain, weight_sums);
        u32* to = gradient(BLOCK1, i);
        convolve<G28, Point, C18, 32>(worker.d28_18.at, packed_->transition1_back, ToPairs<G28, false>{to, nullptr});
        return gate<G28, 16>(to, raw(BLOCK1, i), worker.a28_32.at, dropout(BLOCK1, i), sums);
      }
      case BLOCK1: {
        through_norm<G28, 16>(d, y, norm, worker.d28_32.at);
        activate<G28, 9>(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a28_18.at);
        weight_gradient3x3<G28>(worker.a28_18.at, worker.d28_32.at, worker.plain28.at, worker.tiles28, t,
                                weight_sums);
        u32* to = gradient(STEM, i);
        convolve3x3<G28, C32, 18, false>(worker.d28_32.at, packed_->block1_back, worker.tiles28, to, nullptr);
        add_upsampled(skip_gradient(i), to);
        return gate<G28, 9>(to, raw(STEM, i), worker.a28_18.at, dropout(STEM, i), sums);
      }
      case STEM:
        through_norm<G28, 9>(d, y, norm, worker.d28_18.at);
        to_transposed<G28, 18>(worker.d28_18.at, t);
        return weight_gradient<G28, 9, ByTap<G28, 1>>(t, plain_pixels(i), weight_sums);
    }
  }

  void average_pixels(int i, float* logits) override {
    const Norm& norm = norm_[CLASSIFIER];
    for (int c = 0; c < 5; c++) {
      const Affine normalise(norm.scale, norm.shift, c);
      Floats low = zero(), high = zero();
      for (int v = 0; v < G7::VECTORS; v++) {
        const Words y = load(raw(CLASSIFIER, i) + c * G7::FLAT + v * WIDTH);
        low = low + where(G7::mask(v), max(zero(), normalise.low(y)));
        high = high + where(G7::mask(v), max(zero(), normalise.high(y)));
      }
      float lanes[2][WIDTH];
      store(lanes[0], low), store(lanes[1], high);
      for (int h = 0; h < 2; h++) logits[2 * c + h] = total(lanes[h]) / 49;
    }
  }
  void spread_over_pixels(int i, const float* d_logits, float* sums) override {
    u32* to = gradient(CLASSIFIER, i);
    for (int c = 0; c < 5; c++) {
      const Words both = fill_words(pair_bf16(d_logits[2 * c] / 49, d_logits[2 * c + 1] / 49));
      for (int v = 0; v < G7::VECTORS; v++) store(to + c * G7::FLAT + v * WIDTH, both);
    }
    gate<G7, 5>(to, raw(CLASSIFIER, i), norm_[CLASSIFIER], sums);
  }

  u32* raw_[LAYERS];
  u32* gradient_[LAYERS];
  const std::unique_ptr<Packed> own_packed_;
  Packed* const packed_;  // its own, or those of the network that it is a sibling of
  Buffer<u32> skip_gradient_;  // of block 2's input
  Buffer<Plain> plain_pixels_;
  std::vector<std::unique_ptr<Worker>> workers_;  // one per thread
};

Network* make_network(int capacity) { return new VectorNetwork(capacity); }

}  // namespace
}  // namespace native
