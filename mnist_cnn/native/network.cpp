// The training step of the network in mnist_cnn/model.py, for one core with AVX512-BF16.
//
// Same mathematics as the plain path under bfloat16 autocast; what differs is how often memory is
// passed over. A layer's raw convolution outputs are all that is kept of the forward pass: batch
// norm, ReLU and pooling are computed again from them, an image at a time and in cache, where a
// convolution or a gradient needs them. No dropout.

#include <initializer_list>

#include "convolution.hpp"
#include "pooling.hpp"

namespace native {

enum Layer { STEM, BLOCK1, TRANSITION1, BLOCK2, TRANSITION2, BLOCK3, CLASSIFIER, LAYERS };

constexpr int CHANNELS[LAYERS] = {18, 32, 18, 32, 18, 32, 10};
// Pixels an image batch norm averages over.
constexpr int PIXELS[LAYERS] = {784, 784, 784, 196, 196, 49, 49};
// Items an image of raw convolution outputs, and of the gradients of activations: those of the
// transitions are on the pooled grid.
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

// A scratch plane set for one image; the zeros around it are written once, here.
template <class G, class T, int PLANES>
struct Scratch {
  T* const start = zeros<T>(size_t(PLANES) * G::PLANE);
  T* const at = start + G::LEAD;
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(start); }
};

template <class T>
struct Buffer {
  T* const start;
  explicit Buffer(size_t count) : start(zeros<T>(count)) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(start); }
};

class Network {
 public:
  explicit Network(int capacity)
      : skip_gradient_(size_t(capacity) * 9 * G14::FLAT + GUARD),
        plain_pixels_(size_t(capacity) * G28::PLANE) {
    for (int l = 0; l < LAYERS; l++) {
      raw_[l] = zeros<u32>(size_t(capacity) * RAW[l] + GUARD);
      gradient_[l] = zeros<u32>(size_t(capacity) * GRADIENT[l] + GUARD);
    }
  }
  Network(const Network&) = delete;
  ~Network() {
    for (int l = 0; l < LAYERS; l++) std::free(raw_[l]), std::free(gradient_[l]);
  }

  // Batch norm by the batch's own statistics, which norm() then holds. Layer by layer: a batch's
  // statistics are known once all its images have passed.
  void train_forward(const float* images, int count, const float* const* weights,
                     const float* const* gamma, const float* const* beta, float* logits) {
    count_ = count;
    pack(weights);
    for (auto& norm : norm_) norm.clear();
    for (int l = 0; l < LAYERS; l++) {
      for (int i = 0; i < count; i++) convolve_layer<true>(l, i, images + size_t(i) * 784);
      norm_[l].finish_forward(CHANNELS[l], double(count) * PIXELS[l], gamma[l], beta[l]);
    }
    for (int i = 0; i < count; i++) average_pixels(i, logits + i * 10);
  }

  // Batch norm by the given statistics: image by image, the whole network in cache.
  void infer(const float* images, int count, const float* const* weights,
             const float* const* gamma, const float* const* beta, const float* const* mean,
             const float* const* variance, float* logits) {
    pack(weights);
    for (int l = 0; l < LAYERS; l++)
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].set(o, mean[l][o], variance[l][o], gamma[l][o], beta[l][o]);
    for (int i = 0; i < count; i++) {
      for (int l = 0; l < LAYERS; l++) convolve_layer<false>(l, 0, images + size_t(i) * 784);
      average_pixels(0, logits + i * 10);
    }
  }

  // Gradients of weights, scales and shifts for the batch last passed to train_forward.
  void backward(const float* d_logits, float* const* d_weights, float* const* d_gamma,
                float* const* d_beta) {
    for (auto& norm : norm_) norm.clear();
    for (int i = 0; i < count_; i++) spread_over_pixels(i, d_logits + i * 10);
    for (int l = LAYERS - 1; l >= 0; l--) {
      norm_[l].finish_backward(CHANNELS[l], double(count_) * PIXELS[l], d_gamma[l], d_beta[l]);
      std::memset(weight_sums_.start, 0, 162 * 32 * sizeof(float));
      for (int i = 0; i < count_; i++) backward_layer(l, i);
      write_weight_gradient(l, d_weights[l]);
    }
  }

  const Norm& norm(int layer) const { return norm_[layer]; }

 private:
  u32* raw(int layer, int i) { return raw_[layer] + size_t(i) * RAW[layer]; }
  u32* gradient(int layer, int i) { return gradient_[layer] + size_t(i) * GRADIENT[layer]; }
  u32* skip_gradient(int i) { return skip_gradient_.start + size_t(i) * 9 * G14::FLAT; }
  u16* plain_pixels(int i) { return plain_pixels_.start + size_t(i) * G28::PLANE + G28::LEAD; }

  void pack(const float* const* w) {
    // torch's [output][input][tap]; for gradients of inputs the roles change and taps turn round.
    auto forward = [](const float* k, int inputs, int taps) {
      return [=](int o, int i, int t) { return k[(o * inputs + i) * taps + t]; };
    };
    auto backward = [](const float* k, int inputs, int taps) {
      return [=](int i, int o, int t) { return k[(o * inputs + i) * taps + taps - 1 - t]; };
    };
    const float* stem = w[STEM];
    pack_weights<3, 2, 18, 6>(stem_, [=](int o, int column, int row) {
      return column < 3 ? stem[o * 9 + row * 3 + column] : 0;
    });
    pack_weights<9, 9, 32, 8>(block1_, forward(w[BLOCK1], 18, 9));
    pack_weights<1, 16, 18, 6>(transition1_, forward(w[TRANSITION1], 32, 1));
    pack_weights<9, 9, 32, 8>(block2_, forward(w[BLOCK2], 18, 9));
    pack_weights<1, 16, 18, 6>(transition2_, forward(w[TRANSITION2], 32, 1));
    pack_weights<9, 9, 32, 4>(block3_, forward(w[BLOCK3], 18, 9));
    pack_weights<1, 16, 10, 10>(classifier_, forward(w[CLASSIFIER], 32, 1));
    pack_weights<9, 16, 18, 6>(block1_back_, backward(w[BLOCK1], 18, 9));
    pack_weights<1, 9, 32, 8>(transition1_back_, backward(w[TRANSITION1], 32, 1));
    pack_weights<9, 16, 18, 6>(block2_back_, backward(w[BLOCK2], 18, 9));
    pack_weights<1, 9, 32, 8>(transition2_back_, backward(w[TRANSITION2], 32, 1));
    pack_weights<9, 16, 18, 6>(block3_back_, backward(w[BLOCK3], 18, 9));
    pack_weights<1, 5, 32, 4>(classifier_back_, backward(w[CLASSIFIER], 32, 1));
  }

  // The stem has one input channel: its pairs are of neighbouring pixels instead,
  // (x[p - 1], x[p]) and (x[p + 1], 0), and its taps the three rows.
  void read_image(const float* image, int i) {
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
    // One row before the image (its last vector ends where the image starts) and one after.
    for (int p = -16; p < G28::FLAT + 32; p += 16) {
      u32* to = pixel_pairs_.at + p;
      const __m512i here = _mm512_slli_epi32(load(plain + p), 16);
      _mm512_storeu_si512(to, _mm512_or_si512(load(plain + p - 1), here));
      _mm512_storeu_si512(to + G28::PLANE, load(plain + p + 1));
    }
  }

  // The input of block 2: transition 1 pooled, plus the stem's output at every other pixel.
  void read_block2(int i) {
    pool_activate<G28, G14, 9>(raw(TRANSITION1, i), norm_[TRANSITION1], a14_18_.at);
    add_subsampled(raw(STEM, i), norm_[STEM], a14_18_.at);
  }

  // A layer's raw outputs for image i from those of the layers before it.
  template <bool STATS>
  void convolve_layer(int layer, int i, const float* image) {
    float* sums = norm_[layer].sums;
    u32* y = raw(layer, i);
    switch (layer) {
      case STEM:
        read_image(image, i);
        return convolve<G28, Column<G28>, 2, 18, 6, 3, STATS>(pixel_pairs_.at, stem_, y, sums);
      case BLOCK1:
        activate<G28, 9>(raw(STEM, i), norm_[STEM], a28_18_.at);
        return convolve<G28, Square<G28>, 9, 32, 8, 3, STATS>(a28_18_.at, block1_, y, sums);
      case TRANSITION1:
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], a28_32_.at);
        return convolve<G28, Point, 16, 18, 6, 3, STATS>(a28_32_.at, transition1_, y, sums);
      case BLOCK2:
        read_block2(i);
        return convolve<G14, Square<G14>, 9, 32, 8, 2, STATS>(a14_18_.at, block2_, y, sums);
      case TRANSITION2:
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], a14_32_.at);
        return convolve<G14, Point, 16, 18, 6, 2, STATS>(a14_32_.at, transition2_, y, sums);
      case BLOCK3:
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], a7_18_.at);
        return convolve<G7, Square<G7>, 9, 32, 4, 4, STATS>(a7_18_.at, block3_, y, sums);
      case CLASSIFIER:
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], a7_32_.at);
        return convolve<G7, Point, 16, 10, 10, 2, STATS>(a7_32_.at, classifier_, y, sums);
    }
  }

  // From the gradient of a layer's activations, already gated by its ReLU: adds to the gradient of
  // its weights and leaves the gradient of its input's activations, gated, with their sums.
  void backward_layer(int layer, int i) {
    const u32* d = gradient(layer, i);
    const u32* y = raw(layer, i);
    const Norm& norm = norm_[layer];
    float* sums = weight_sums_.start;
    u16* t = transposed_.start;
    switch (layer) {
      case CLASSIFIER: {
        through_norm<G7, 5>(d, y, norm, d7_10_.at);
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], a7_32_.at);
        to_plain<G7, 5>(d7_10_.at, plain7_.at);
        to_transposed<G7, 16>(a7_32_.at, t);
        weight_gradient<10, 10, ByChannel<G7>>(t, G7::PAIRS, plain7_.at, sums);
        u32* to = gradient(BLOCK3, i);
        convolve<G7, Point, 5, 32, 4, 4, false>(d7_10_.at, classifier_back_, to, nullptr);
        return gate<G7, 16>(to, raw(BLOCK3, i), norm_[BLOCK3]);
      }
      case BLOCK3: {
        through_norm<G7, 16>(d, y, norm, d7_32_.at);
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], a7_18_.at);
        to_plain<G7, 9>(a7_18_.at, plain7_.at);
        to_transposed<G7, 16>(d7_32_.at, t);
        weight_gradient<9, 162, ByTap<G7>>(t, G7::PAIRS, plain7_.at, sums);
        u32* to = gradient(TRANSITION2, i);
        convolve<G7, Square<G7>, 16, 18, 6, 4, false>(d7_32_.at, block3_back_, to, nullptr);
        return pool_gate<G14, G7, 9>(to, raw(TRANSITION2, i), norm_[TRANSITION2]);
      }
      case TRANSITION2: {
        pool_through_norm<G14, G7, 9>(d, y, norm, d14_18_.at);
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], a14_32_.at);
        to_plain<G14, 9>(d14_18_.at, plain14_.at);
        to_transposed<G14, 16>(a14_32_.at, t);
        weight_gradient<9, 18, ByChannel<G14>>(t, G14::PAIRS, plain14_.at, sums);
        u32* to = gradient(BLOCK2, i);
        convolve<G14, Point, 9, 32, 8, 2, false>(d14_18_.at, transition2_back_, to, nullptr);
        return gate<G14, 16>(to, raw(BLOCK2, i), norm_[BLOCK2]);
      }
      case BLOCK2: {
        through_norm<G14, 16>(d, y, norm, d14_32_.at);
        read_block2(i);
        to_plain<G14, 9>(a14_18_.at, plain14_.at);
        to_transposed<G14, 16>(d14_32_.at, t);
        weight_gradient<9, 162, ByTap<G14>>(t, G14::PAIRS, plain14_.at, sums);
        u32* to = gradient(TRANSITION1, i);
        convolve<G14, Square<G14>, 16, 18, 6, 2, false>(d14_32_.at, block2_back_, to, nullptr);
        std::memcpy(skip_gradient(i), to, 9 * G14::FLAT * sizeof(u32));
        return pool_gate<G28, G14, 9>(to, raw(TRANSITION1, i), norm_[TRANSITION1]);
      }
      case TRANSITION1: {
        pool_through_norm<G28, G14, 9>(d, y, norm, d28_18_.at);
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], a28_32_.at);
        to_plain<G28, 9>(d28_18_.at, plain28_.at);
        to_transposed<G28, 16>(a28_32_.at, t);
        weight_gradient<9, 18, ByChannel<G28>>(t, G28::PAIRS, plain28_.at, sums);
        u32* to = gradient(BLOCK1, i);
        convolve<G28, Point, 9, 32, 8, 3, false>(d28_18_.at, transition1_back_, to, nullptr);
        return gate<G28, 16>(to, raw(BLOCK1, i), norm_[BLOCK1]);
      }
      case BLOCK1: {
        through_norm<G28, 16>(d, y, norm, d28_32_.at);
        activate<G28, 9>(raw(STEM, i), norm_[STEM], a28_18_.at);
        to_plain<G28, 9>(a28_18_.at, plain28_.at);
        to_transposed<G28, 16>(d28_32_.at, t);
        weight_gradient<9, 162, ByTap<G28>>(t, G28::PAIRS, plain28_.at, sums);
        u32* to = gradient(STEM, i);
        convolve<G28, Square<G28>, 16, 18, 6, 3, false>(d28_32_.at, block1_back_, to, nullptr);
        add_upsampled(skip_gradient(i), to);
        return gate<G28, 9>(to, raw(STEM, i), norm_[STEM]);
      }
      case STEM:
        through_norm<G28, 9>(d, y, norm, d28_18_.at);
        to_transposed<G28, 9>(d28_18_.at, t);
        return weight_gradient<9, 9, ByTap<G28>>(t, G28::PAIRS, plain_pixels(i), sums);
    }
  }

  // weight_sums is [input and tap][output], or for 1x1 kernels [output][input].
  void write_weight_gradient(int layer, float* to) {
    const float* sums = weight_sums_.start;
    switch (layer) {
      case TRANSITION1:
      case TRANSITION2:
      case CLASSIFIER:
        std::memcpy(to, sums, size_t(CHANNELS[layer]) * 32 * sizeof(float));
        return;
      default:
        const int each = layer == STEM ? 9 : 162;
        for (int o = 0; o < CHANNELS[layer]; o++)
          for (int k = 0; k < each; k++) to[o * each + k] = sums[k * 32 + o];
    }
  }

  // logits[o] = mean over the pixels of relu(norm(classifier)).
  void average_pixels(int i, float* logits) {
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
  void spread_over_pixels(int i, const float* d_logits) {
    u32* to = gradient(CLASSIFIER, i);
    for (int c = 0; c < 5; c++) {
      const __m512i both =
          _mm512_set1_epi32(int(pair_bf16(d_logits[2 * c] / 49, d_logits[2 * c + 1] / 49)));
      for (int v = 0; v < G7::VECTORS; v++)
        _mm512_storeu_si512(to + c * G7::FLAT + v * 16, both);
    }
    gate<G7, 5>(to, raw(CLASSIFIER, i), norm_[CLASSIFIER]);
  }

  int count_ = 0;
  Norm norm_[LAYERS];
  u32* raw_[LAYERS];
  u32* gradient_[LAYERS];
  Buffer<u32> skip_gradient_;  // of block 2's input
  Buffer<u16> plain_pixels_;
  Buffer<float> weight_sums_{162 * 32};
  Buffer<u16> transposed_{size_t(G28::VECTORS) * 8 * 64};
  // One image's activations and gradients: grid, channels.
  Scratch<G28, u32, 2> pixel_pairs_;
  Scratch<G28, u32, 9> a28_18_, d28_18_;
  Scratch<G28, u32, 16> a28_32_, d28_32_;
  Scratch<G14, u32, 9> a14_18_, d14_18_;
  Scratch<G14, u32, 16> a14_32_, d14_32_;
  Scratch<G7, u32, 9> a7_18_;
  Scratch<G7, u32, 16> a7_32_, d7_32_;
  Scratch<G7, u32, 5> d7_10_;
  Scratch<G28, u16, 18> plain28_;
  Scratch<G14, u16, 18> plain14_;
  Scratch<G7, u16, 18> plain7_;
  // Packed weights, forward and for the gradients of inputs.
  u32 stem_[3 * 2 * 18], block1_[9 * 9 * 32], transition1_[16 * 18], block2_[9 * 9 * 32],
      transition2_[16 * 18], block3_[9 * 9 * 32], classifier_[16 * 10];
  u32 block1_back_[9 * 16 * 18], transition1_back_[9 * 32], block2_back_[9 * 16 * 18],
      transition2_back_[9 * 32], block3_back_[9 * 16 * 18], classifier_back_[5 * 32];
};

}  // namespace native

using native::Network;

extern "C" {

// SHA-256 of the files this was compiled from.
const char* sources() { return SOURCES; }

// Arrays of seven pointers each, in the order of the layers: contiguous float32, torch's shapes.
Network* network_new(int capacity) { return new Network(capacity); }

void network_free(Network* network) { delete network; }

// Moves the running statistics by `momentum` towards the batch's, as torch.nn.BatchNorm2d does.
void network_train_forward(Network* network, const float* images, int count,
                           const float* const* weights, const float* const* gamma,
                           const float* const* beta, float* const* mean, float* const* variance,
                           float momentum, float* logits) {
  network->train_forward(images, count, weights, gamma, beta, logits);
  for (int l = 0; l < native::LAYERS; l++) {
    const native::Norm& norm = network->norm(l);
    const float n = float(count) * native::PIXELS[l];
    for (int o = 0; o < native::CHANNELS[l]; o++) {
      mean[l][o] += momentum * (norm.mean[o] - mean[l][o]);
      variance[l][o] += momentum * (norm.variance[o] * n / (n - 1) - variance[l][o]);
    }
  }
}

void network_backward(Network* network, const float* d_logits, float* const* d_weights,
                      float* const* d_gamma, float* const* d_beta) {
  network->backward(d_logits, d_weights, d_gamma, d_beta);
}

void network_infer(Network* network, const float* images, int count, const float* const* weights,
                   const float* const* gamma, const float* const* beta, const float* const* mean,
                   const float* const* variance, float* logits) {
  network->infer(images, count, weights, gamma, beta, mean, variance, logits);
}

}  // extern "C"
