// The step with AVX512-BF16: dot products of bfloat16 pairs, on planes of channel pairs; see
// layout.hpp.

#include "convolution.hpp"
#include "network.hpp"
#include "pooling.hpp"

namespace native {
namespace {

// Items per image of raw convolution outputs, and of the gradients of activations; the latter are on
// the pooled grid for the transitions.
constexpr int RAW[LAYERS] = {9 * G28::FLAT, 16 * G28::FLAT, 9 * G28::FLAT, 16 * G14::FLAT,
                             9 * G14::FLAT, 16 * G7::FLAT,  5 * G7::FLAT};
constexpr int GRADIENT[LAYERS] = {9 * G28::FLAT, 16 * G28::FLAT, 9 * G14::FLAT, 16 * G14::FLAT,
                                  9 * G7::FLAT,  16 * G7::FLAT,  5 * G7::FLAT};

// The weights as `convolve` reads them: [output block][tap][input pair][output of the block].
template <int TAPS, int C2, int OUT, int OB, class Weight>
void pack_weights(u32* to, Weight weight) {
  for (int block = 0; block < OUT; block += OB)
    for (int t = 0; t < TAPS; t++)
      for (int c = 0; c < C2; c++)
        for (int o = block; o < block + OB; o++)
          *to++ = pair_bf16(weight(o, 2 * c, t), weight(o, 2 * c + 1, t));
}

// Scratch planes for one image; the zeros around it are written once, here.
template <class G, class T, int PLANES>
struct Scratch {
  T* const start = zeros<T>(size_t(PLANES) * G::PLANE);
  T* const at = start + G::LEAD;
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(start); }
};

// Memory of one thread: one image's activations and gradients, named by grid and channels.
struct Worker {
  Scratch<G28, u32, 2> pixel_pairs;
  Scratch<G28, u32, 9> a28_18, d28_18;
  Scratch<G28, u32, 16> a28_32, d28_32;
  Scratch<G14, u32, 9> a14_18, d14_18;
  Scratch<G14, u32, 16> a14_32, d14_32;
  Scratch<G7, u32, 9> a7_18;
  Scratch<G7, u32, 16> a7_32, d7_32;
  Scratch<G7, u32, 5> d7_10;
  Scratch<G28, u16, 18> plain28;
  Scratch<G14, u16, 18> plain14;
  Scratch<G7, u16, 18> plain7;
  Buffer<u16> transposed{size_t(G28::VECTORS) * 8 * 64};
};

// A layer's weight gradient is [input and tap][32 outputs], for 1x1 kernels [output][32 inputs].
constexpr int WEIGHT_SUMS[LAYERS] = {9 * 32, 162 * 32, 18 * 32, 162 * 32, 18 * 32, 162 * 32, 10 * 32};
constexpr int MOST_WEIGHT_SUMS = 162 * 32;

// Two sums per channel, 16 lanes each.
constexpr int SUMS = 32 * 2 * 16;

// The weights as `convolve` reads them, forward and for the gradients of inputs.
struct Packed {
  u32 stem[3 * 2 * 18], block1[9 * 9 * 32], transition1[16 * 18], block2[9 * 9 * 32],
      transition2[16 * 18], block3[9 * 9 * 32], classifier[16 * 10];
  u32 block1_back[9 * 16 * 18], transition1_back[9 * 32], block2_back[9 * 16 * 18],
      transition2_back[9 * 32], block3_back[9 * 16 * 18], classifier_back[5 * 32];
};

class Avx512Network : public Network {
 public:
  explicit Avx512Network(int capacity, std::shared_ptr<Packed> packed = std::make_shared<Packed>())
      : Network(capacity, SUMS, MOST_WEIGHT_SUMS),
        packed_(std::move(packed)),
        skip_gradient_(size_t(capacity) * 9 * G14::FLAT + GUARD),
        plain_pixels_(size_t(capacity) * G28::PLANE) {
    for (int l = 0; l < LAYERS; l++) {
      raw_[l] = zeros<u32>(size_t(capacity) * RAW[l] + GUARD);
      gradient_[l] = zeros<u32>(size_t(capacity) * GRADIENT[l] + GUARD);
    }
  }
  ~Avx512Network() override {
    for (int l = 0; l < LAYERS; l++) std::free(raw_[l]), std::free(gradient_[l]);
  }

  void kept(int layer, int i, uint8_t* to) const override {
    const Dropout dropout = this->dropout(layer, i);
    const bool wide = layer <= BLOCK1, middle = layer == BLOCK2;
    const int side = wide ? 28 : middle ? 14 : 7;
    const int pitch = wide ? G28::PITCH : middle ? G14::PITCH : G7::PITCH;
    for (int c = 0; c < CHANNELS[layer]; c++)
      for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
          const auto kept = dropout.kept(c / 2, y * pitch + x);
          *to++ = (c % 2 ? kept.high : kept.low) & 1;
        }
  }

  std::unique_ptr<Network> sibling(int capacity) const override {
    return std::make_unique<Avx512Network>(capacity, packed_);
  }

  int slot(int, int channel) const override { return channel; }

  int weight_floats(int layer) const override { return WEIGHT_SUMS[layer]; }

  int place(int layer, int output, int input, int tap) const override {
    const bool by_output = layer == TRANSITION1 || layer == TRANSITION2 || layer == CLASSIFIER;
    return by_output ? output * 32 + input : (input * 9 + tap) * 32 + output;
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
    pack_weights<3, 2, 18, 6>(to.stem, [=](int o, int column, int row) {
      return column < 3 ? stem[o * 9 + row * 3 + column] : 0;
    });
    pack_weights<9, 9, 32, 8>(to.block1, forward(w[BLOCK1], 18, 9));
    pack_weights<1, 16, 18, 6>(to.transition1, forward(w[TRANSITION1], 32, 1));
    pack_weights<9, 9, 32, 8>(to.block2, forward(w[BLOCK2], 18, 9));
    pack_weights<1, 16, 18, 6>(to.transition2, forward(w[TRANSITION2], 32, 1));
    pack_weights<9, 9, 32, 4>(to.block3, forward(w[BLOCK3], 18, 9));
    pack_weights<1, 16, 10, 10>(to.classifier, forward(w[CLASSIFIER], 32, 1));
    pack_weights<9, 16, 18, 6>(to.block1_back, backward(w[BLOCK1], 18, 9));
    pack_weights<1, 9, 32, 8>(to.transition1_back, backward(w[TRANSITION1], 32, 1));
    pack_weights<9, 16, 18, 6>(to.block2_back, backward(w[BLOCK2], 18, 9));
    pack_weights<1, 9, 32, 8>(to.transition2_back, backward(w[TRANSITION2], 32, 1));
    pack_weights<9, 16, 18, 6>(to.block3_back, backward(w[BLOCK3], 18, 9));
    pack_weights<1, 5, 32, 4>(to.classifier_back, backward(w[CLASSIFIER], 32, 1));
  }


 private:
  u32* raw(int layer, int i) { return raw_[layer] + size_t(i) * RAW[layer]; }
  u32* gradient(int layer, int i) { return gradient_[layer] + size_t(i) * GRADIENT[layer]; }
  u32* skip_gradient(int i) { return skip_gradient_.start + size_t(i) * 9 * G14::FLAT; }
  u16* plain_pixels(int i) { return plain_pixels_.start + size_t(i) * G28::PLANE + G28::LEAD; }

  void grow_workers(int threads) override {
    while (int(workers_.size()) < threads) workers_.push_back(std::make_unique<Worker>());
  }

  double sum(const float* sums, int slot, int which) const override {
    const float* lanes = sums + slot * 32 + which * 16;
    return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(_mm256_load_ps(lanes)),
                                              _mm512_cvtps_pd(_mm256_load_ps(lanes + 8))));
  }

  // The stem has one input channel, so its pairs are neighbouring pixels, (x[p - 1], x[p]) and
  // (x[p + 1], 0), and its taps are the three rows.
  void read_image(Worker& worker, const float* image, int i) {
    u16* plain = plain_pixels(i);
    for (int y = 0; y < 28; y++) {
      const float* row = image + y * 28;
      u16* to = plain + y * G28::PITCH;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                          (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(row)));
      _mm256_mask_storeu_epi16(
          to + 16, 0xfff, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(0xfff, row + 16)));
    }
    auto load = [](const u16* p) {
      return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    };
    // One row before the image (its last vector ends at the image's start) and one row after it.
    for (int p = -16; p < G28::FLAT + 32; p += 16) {
      u32* to = worker.pixel_pairs.at + p;
      const __m512i here = _mm512_slli_epi32(load(plain + p), 16);
      _mm512_storeu_si512(to, _mm512_or_si512(load(plain + p - 1), here));
      _mm512_storeu_si512(to + G28::PLANE, load(plain + p + 1));
    }
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
        read_image(worker, image, i);
        return convolve<G28, Column<G28>, 2, 18, 6, 3, STATS>(worker.pixel_pairs.at, packed_->stem, y, sums);
      case BLOCK1:
        activate<G28, 9>(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a28_18.at);
        return convolve<G28, Square<G28>, 9, 32, 8, 3, STATS>(worker.a28_18.at, packed_->block1, y, sums);
      case TRANSITION1:
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), worker.a28_32.at);
        return convolve<G28, Point, 16, 18, 6, 3, STATS>(worker.a28_32.at, packed_->transition1, y, sums);
      case BLOCK2:
        read_block2(worker, i);
        return convolve<G14, Square<G14>, 9, 32, 8, 2, STATS>(worker.a14_18.at, packed_->block2, y, sums);
      case TRANSITION2:
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), worker.a14_32.at);
        return convolve<G14, Point, 16, 18, 6, 2, STATS>(worker.a14_32.at, packed_->transition2, y, sums);
      case BLOCK3:
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], worker.a7_18.at);
        return convolve<G7, Square<G7>, 9, 32, 4, 4, STATS>(worker.a7_18.at, packed_->block3, y, sums);
      case CLASSIFIER:
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), worker.a7_32.at);
        return convolve<G7, Point, 16, 10, 10, 2, STATS>(worker.a7_32.at, packed_->classifier, y, sums);
    }
  }

  void backward_layer(int thread, int layer, int i, float* sums, float* weight_sums) override {
    Worker& worker = *workers_[thread];
    const u32* d = gradient(layer, i);
    const u32* y = raw(layer, i);
    const Norm& norm = norm_[layer];
    u16* t = worker.transposed.start;
    switch (layer) {
      case CLASSIFIER: {
        through_norm<G7, 5>(d, y, norm, worker.d7_10.at);
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), worker.a7_32.at);
        to_plain<G7, 5>(worker.d7_10.at, worker.plain7.at);
        to_transposed<G7, 16>(worker.a7_32.at, t);
        weight_gradient<10, 10, ByChannel<G7>>(t, G7::PAIRS, worker.plain7.at, weight_sums);
        u32* to = gradient(BLOCK3, i);
        convolve<G7, Point, 5, 32, 4, 4, false>(worker.d7_10.at, packed_->classifier_back, to, nullptr);
        return gate<G7, 16>(to, raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), sums);
      }
      case BLOCK3: {
        through_norm<G7, 16>(d, y, norm, worker.d7_32.at);
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], worker.a7_18.at);
        to_plain<G7, 9>(worker.a7_18.at, worker.plain7.at);
        to_transposed<G7, 16>(worker.d7_32.at, t);
        weight_gradient<9, 162, ByTap<G7>>(t, G7::PAIRS, worker.plain7.at, weight_sums);
        u32* to = gradient(TRANSITION2, i);
        convolve<G7, Square<G7>, 16, 18, 6, 4, false>(worker.d7_32.at, packed_->block3_back, to, nullptr);
        return pool_gate<G14, G7, 9>(to, raw(TRANSITION2, i), norm_[TRANSITION2], sums);
      }
      case TRANSITION2: {
        pool_through_norm<G14, G7, 9>(d, y, norm, worker.d14_18.at);
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), worker.a14_32.at);
        to_plain<G14, 9>(worker.d14_18.at, worker.plain14.at);
        to_transposed<G14, 16>(worker.a14_32.at, t);
        weight_gradient<9, 18, ByChannel<G14>>(t, G14::PAIRS, worker.plain14.at, weight_sums);
        u32* to = gradient(BLOCK2, i);
        convolve<G14, Point, 9, 32, 8, 2, false>(worker.d14_18.at, packed_->transition2_back, to, nullptr);
        return gate<G14, 16>(to, raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), sums);
      }
      case BLOCK2: {
        through_norm<G14, 16>(d, y, norm, worker.d14_32.at);
        read_block2(worker, i);
        to_plain<G14, 9>(worker.a14_18.at, worker.plain14.at);
        to_transposed<G14, 16>(worker.d14_32.at, t);
        weight_gradient<9, 162, ByTap<G14>>(t, G14::PAIRS, worker.plain14.at, weight_sums);
        u32* to = gradient(TRANSITION1, i);
        convolve<G14, Square<G14>, 16, 18, 6, 2, false>(worker.d14_32.at, packed_->block2_back, to, nullptr);
        std::memcpy(skip_gradient(i), to, 9 * G14::FLAT * sizeof(u32));
        return pool_gate<G28, G14, 9>(to, raw(TRANSITION1, i), norm_[TRANSITION1], sums);
      }
      case TRANSITION1: {
        pool_through_norm<G28, G14, 9>(d, y, norm, worker.d28_18.at);
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), worker.a28_32.at);
        to_plain<G28, 9>(worker.d28_18.at, worker.plain28.at);
        to_transposed<G28, 16>(worker.a28_32.at, t);
        weight_gradient<9, 18, ByChannel<G28>>(t, G28::PAIRS, worker.plain28.at, weight_sums);
        u32* to = gradient(BLOCK1, i);
        convolve<G28, Point, 9, 32, 8, 3, false>(worker.d28_18.at, packed_->transition1_back, to, nullptr);
        return gate<G28, 16>(to, raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), sums);
      }
      case BLOCK1: {
        through_norm<G28, 16>(d, y, norm, worker.d28_32.at);
        activate<G28, 9>(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a28_18.at);
        to_plain<G28, 9>(worker.a28_18.at, worker.plain28.at);
        to_transposed<G28, 16>(worker.d28_32.at, t);
        weight_gradient<9, 162, ByTap<G28>>(t, G28::PAIRS, worker.plain28.at, weight_sums);
        u32* to = gradient(STEM, i);
        convolve<G28, Square<G28>, 16, 18, 6, 3, false>(worker.d28_32.at, packed_->block1_back, to, nullptr);
        add_upsampled(skip_gradient(i), to);
        return gate<G28, 9>(to, raw(STEM, i), norm_[STEM], dropout(STEM, i), sums);
      }
      case STEM:
        through_norm<G28, 9>(d, y, norm, worker.d28_18.at);
        to_transposed<G28, 9>(worker.d28_18.at, t);
        return weight_gradient<9, 9, ByTap<G28>>(t, G28::PAIRS, plain_pixels(i), weight_sums);
    }
  }

  void average_pixels(int i, float* logits) override {
    const Norm& norm = norm_[CLASSIFIER];
    const __m512 zero = _mm512_setzero_ps();
    for (int o = 0; o < 10; o++) {
      const __m512 s = _mm512_set1_ps(norm.scale[o]), b = _mm512_set1_ps(norm.shift[o]);
      __m512 sum = zero;
      for (int v = 0; v < G7::VECTORS; v++) {
        __m512i y = _mm512_loadu_si512(raw(CLASSIFIER, i) + o / 2 * G7::FLAT + v * 16);
        __m512 z = _mm512_fmadd_ps(o % 2 ? high(y) : low(y), s, b);
        sum = _mm512_add_ps(sum, _mm512_maskz_max_ps(G7::masks.m[v], zero, z));
      }
      logits[o] = _mm512_reduce_add_ps(sum) / 49;
    }
  }
  void spread_over_pixels(int i, const float* d_logits, float* sums) override {
    u32* to = gradient(CLASSIFIER, i);
    for (int c = 0; c < 5; c++) {
      const __m512i both =
          _mm512_set1_epi32(int(pair_bf16(d_logits[2 * c] / 49, d_logits[2 * c + 1] / 49)));
      for (int v = 0; v < G7::VECTORS; v++)
        _mm512_storeu_si512(to + c * G7::FLAT + v * 16, both);
    }
    gate<G7, 5>(to, raw(CLASSIFIER, i), norm_[CLASSIFIER], {}, sums);
  }

  u32* raw_[LAYERS];
  u32* gradient_[LAYERS];
  Buffer<u32> skip_gradient_;  // of block 2's input
  Buffer<u16> plain_pixels_;
  std::vector<std::unique_ptr<Worker>> workers_;  // one per thread
  const std::shared_ptr<Packed> packed_;  // shared with its siblings
};

}  // namespace

std::unique_ptr<Network> avx512_network(int capacity) {
  return std::make_unique<Avx512Network>(capacity);
}

}  // namespace native
