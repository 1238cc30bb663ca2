// The training step of the network in mnist_cnn/model.py, for CPUs with AVX512-BF16.
//
// Same mathematics as the plain path under bfloat16 autocast; what differs is how often memory is
// passed over. A layer's raw convolution outputs are all that is kept of the forward pass: batch
// norm, ReLU and pooling are computed again from them, an image at a time and in cache, where a
// convolution or a gradient needs them.

#include <algorithm>
#include <memory>

#include "convolution.hpp"
#include "pool.hpp"
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

// What one thread works in: one image's activations and gradients, named by grid and channels.
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

// Images a thread takes at a time: enough that clearing and adding its sums does not show, few
// enough that many threads have work. Sums are kept for each such piece and added in the same order
// whoever made them, so results are the same, bit for bit, for every number of threads.
constexpr int PIECE = 8;
// A layer's weight gradient is [input and tap][32 outputs], for 1x1 kernels [output][32 inputs].
constexpr int WEIGHT_SUMS[LAYERS] = {9 * 32, 162 * 32, 18 * 32, 162 * 32, 18 * 32, 162 * 32, 10 * 32};
constexpr int MOST_WEIGHT_SUMS = 162 * 32;

class Network {
 public:
  explicit Network(int capacity)
      : skip_gradient_(size_t(capacity) * 9 * G14::FLAT + GUARD),
        plain_pixels_(size_t(capacity) * G28::PLANE),
        sums_(size_t(pieces(capacity)) * SUMS),
        weight_sums_(size_t(pieces(capacity)) * MOST_WEIGHT_SUMS) {
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
                     const float* const* gamma, const float* const* beta, float dropout, u32 seed,
                     float* logits) {
    count_ = count;
    dropped_ = u32(std::lround(dropout * Dropout::STEPS));
    seed_ = seed;
    pack(weights);
    for (int l = 0; l < LAYERS; l++) {
      each_image(0, [&](Worker& worker, int i, float* sums, float*) {
        convolve_layer<true>(worker, l, i, images + size_t(i) * 784, sums);
      });
      norm_[l].finish_forward(sums_.start, pieces(count), CHANNELS[l], double(count) * PIXELS[l],
                              gamma[l], beta[l]);
    }
    for (int i = 0; i < count; i++) average_pixels(i, logits + i * 10);
  }

  // Batch norm by the given statistics. Image by image, the whole network in cache: the capacity
  // need only be the number of threads.
  void infer(const float* images, int count, const float* const* weights,
             const float* const* gamma, const float* const* beta, const float* const* mean,
             const float* const* variance, float* logits) {
    dropped_ = 0;
    pack(weights);
    for (int l = 0; l < LAYERS; l++)
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].set(o, mean[l][o], variance[l][o], gamma[l][o], beta[l][o]);
    grow_workers();
    pool().run(count, [&](int thread, int i) {
      for (int l = 0; l < LAYERS; l++)
        convolve_layer<false>(*workers_[thread], l, thread, images + size_t(i) * 784, nullptr);
      average_pixels(thread, logits + i * 10);
    });
  }

  // Gradients of weights, scales and shifts for the batch last passed to train_forward.
  void backward(const float* d_logits, float* const* d_weights, float* const* d_gamma,
                float* const* d_beta) {
    each_image(0, [&](Worker&, int i, float* sums, float*) {
      spread_over_pixels(i, d_logits + i * 10, sums);
    });
    for (int l = LAYERS - 1; l >= 0; l--) {
      norm_[l].finish_backward(sums_.start, pieces(count_), CHANNELS[l],
                               double(count_) * PIXELS[l], d_gamma[l], d_beta[l]);
      each_image(WEIGHT_SUMS[l], [&](Worker& worker, int i, float* sums, float* weight_sums) {
        backward_layer(worker, l, i, sums, weight_sums);
      });
      write_weight_gradient(l, d_weights[l]);
    }
  }

  const Norm& norm(int layer) const { return norm_[layer]; }

  // What a layer's dropout did, or will do, to an image of the batch last passed to train_forward.
  Dropout dropout(int layer, int i) const {
    return {mixed(seed_ ^ mixed(u32(i * LAYERS + layer))), dropped_,
            Dropout::STEPS / (Dropout::STEPS - float(dropped_))};
  }

 private:
  static int pieces(int count) { return (count + PIECE - 1) / PIECE; }
  u32* raw(int layer, int i) { return raw_[layer] + size_t(i) * RAW[layer]; }
  u32* gradient(int layer, int i) { return gradient_[layer] + size_t(i) * GRADIENT[layer]; }
  u32* skip_gradient(int i) { return skip_gradient_.start + size_t(i) * 9 * G14::FLAT; }
  u16* plain_pixels(int i) { return plain_pixels_.start + size_t(i) * G28::PLANE + G28::LEAD; }

  void grow_workers() {
    while (int(workers_.size()) < pool().threads()) workers_.push_back(std::make_unique<Worker>());
  }

  // work(worker, image, its piece's sums, its piece's weight sums), both zero at first; weights
  // says how many of the latter there are.
  template <class Work>
  void each_image(int weights, Work work) {
    grow_workers();
    pool().run(pieces(count_), [&](int thread, int piece) {
      float* sums = sums_.start + size_t(piece) * SUMS;
      float* weight_sums = weight_sums_.start + size_t(piece) * weights;
      std::memset(sums, 0, SUMS * sizeof(float));
      std::memset(weight_sums, 0, weights * sizeof(float));
      const int end = std::min(count_, (piece + 1) * PIECE);
      for (int i = piece * PIECE; i < end; i++) work(*workers_[thread], i, sums, weight_sums);
    });
  }

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
    // One row before the image (its last vector ends where the image starts) and one after.
    for (int p = -16; p < G28::FLAT + 32; p += 16) {
      u32* to = worker.pixel_pairs.at + p;
      const __m512i here = _mm512_slli_epi32(load(plain + p), 16);
      _mm512_storeu_si512(to, _mm512_or_si512(load(plain + p - 1), here));
      _mm512_storeu_si512(to + G28::PLANE, load(plain + p + 1));
    }
  }

  // The input of block 2: transition 1 pooled, plus the stem's output at every other pixel.
  void read_block2(Worker& worker, int i) {
    pool_activate<G28, G14, 9>(raw(TRANSITION1, i), norm_[TRANSITION1], worker.a14_18.at);
    add_subsampled(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a14_18.at);
  }

  // A layer's raw outputs for image i from those of the layers before it.
  template <bool STATS>
  void convolve_layer(Worker& worker, int layer, int i, const float* image, float* sums) {
    u32* y = raw(layer, i);
    switch (layer) {
      case STEM:
        read_image(worker, image, i);
        return convolve<G28, Column<G28>, 2, 18, 6, 3, STATS>(worker.pixel_pairs.at, stem_, y, sums);
      case BLOCK1:
        activate<G28, 9>(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a28_18.at);
        return convolve<G28, Square<G28>, 9, 32, 8, 3, STATS>(worker.a28_18.at, block1_, y, sums);
      case TRANSITION1:
        activate<G28, 16>(raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), worker.a28_32.at);
        return convolve<G28, Point, 16, 18, 6, 3, STATS>(worker.a28_32.at, transition1_, y, sums);
      case BLOCK2:
        read_block2(worker, i);
        return convolve<G14, Square<G14>, 9, 32, 8, 2, STATS>(worker.a14_18.at, block2_, y, sums);
      case TRANSITION2:
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), worker.a14_32.at);
        return convolve<G14, Point, 16, 18, 6, 2, STATS>(worker.a14_32.at, transition2_, y, sums);
      case BLOCK3:
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], worker.a7_18.at);
        return convolve<G7, Square<G7>, 9, 32, 4, 4, STATS>(worker.a7_18.at, block3_, y, sums);
      case CLASSIFIER:
        activate<G7, 16>(raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), worker.a7_32.at);
        return convolve<G7, Point, 16, 10, 10, 2, STATS>(worker.a7_32.at, classifier_, y, sums);
    }
  }

  // From the gradient of a layer's activations, already gated by its ReLU: adds to the gradient of
  // its weights and leaves the gradient of its input's activations, gated, with their sums.
  void backward_layer(Worker& worker, int layer, int i, float* sums, float* weight_sums) {
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
        convolve<G7, Point, 5, 32, 4, 4, false>(worker.d7_10.at, classifier_back_, to, nullptr);
        return gate<G7, 16>(to, raw(BLOCK3, i), norm_[BLOCK3], dropout(BLOCK3, i), sums);
      }
      case BLOCK3: {
        through_norm<G7, 16>(d, y, norm, worker.d7_32.at);
        pool_activate<G14, G7, 9>(raw(TRANSITION2, i), norm_[TRANSITION2], worker.a7_18.at);
        to_plain<G7, 9>(worker.a7_18.at, worker.plain7.at);
        to_transposed<G7, 16>(worker.d7_32.at, t);
        weight_gradient<9, 162, ByTap<G7>>(t, G7::PAIRS, worker.plain7.at, weight_sums);
        u32* to = gradient(TRANSITION2, i);
        convolve<G7, Square<G7>, 16, 18, 6, 4, false>(worker.d7_32.at, block3_back_, to, nullptr);
        return pool_gate<G14, G7, 9>(to, raw(TRANSITION2, i), norm_[TRANSITION2], sums);
      }
      case TRANSITION2: {
        pool_through_norm<G14, G7, 9>(d, y, norm, worker.d14_18.at);
        activate<G14, 16>(raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), worker.a14_32.at);
        to_plain<G14, 9>(worker.d14_18.at, worker.plain14.at);
        to_transposed<G14, 16>(worker.a14_32.at, t);
        weight_gradient<9, 18, ByChannel<G14>>(t, G14::PAIRS, worker.plain14.at, weight_sums);
        u32* to = gradient(BLOCK2, i);
        convolve<G14, Point, 9, 32, 8, 2, false>(worker.d14_18.at, transition2_back_, to, nullptr);
        return gate<G14, 16>(to, raw(BLOCK2, i), norm_[BLOCK2], dropout(BLOCK2, i), sums);
      }
      case BLOCK2: {
        through_norm<G14, 16>(d, y, norm, worker.d14_32.at);
        read_block2(worker, i);
        to_plain<G14, 9>(worker.a14_18.at, worker.plain14.at);
        to_transposed<G14, 16>(worker.d14_32.at, t);
        weight_gradient<9, 162, ByTap<G14>>(t, G14::PAIRS, worker.plain14.at, weight_sums);
        u32* to = gradient(TRANSITION1, i);
        convolve<G14, Square<G14>, 16, 18, 6, 2, false>(worker.d14_32.at, block2_back_, to, nullptr);
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
        convolve<G28, Point, 9, 32, 8, 3, false>(worker.d28_18.at, transition1_back_, to, nullptr);
        return gate<G28, 16>(to, raw(BLOCK1, i), norm_[BLOCK1], dropout(BLOCK1, i), sums);
      }
      case BLOCK1: {
        through_norm<G28, 16>(d, y, norm, worker.d28_32.at);
        activate<G28, 9>(raw(STEM, i), norm_[STEM], dropout(STEM, i), worker.a28_18.at);
        to_plain<G28, 9>(worker.a28_18.at, worker.plain28.at);
        to_transposed<G28, 16>(worker.d28_32.at, t);
        weight_gradient<9, 162, ByTap<G28>>(t, G28::PAIRS, worker.plain28.at, weight_sums);
        u32* to = gradient(STEM, i);
        convolve<G28, Square<G28>, 16, 18, 6, 3, false>(worker.d28_32.at, block1_back_, to, nullptr);
        add_upsampled(skip_gradient(i), to);
        return gate<G28, 9>(to, raw(STEM, i), norm_[STEM], dropout(STEM, i), sums);
      }
      case STEM:
        through_norm<G28, 9>(d, y, norm, worker.d28_18.at);
        to_transposed<G28, 9>(worker.d28_18.at, t);
        return weight_gradient<9, 9, ByTap<G28>>(t, G28::PAIRS, plain_pixels(i), weight_sums);
    }
  }

  void write_weight_gradient(int layer, float* to) {
    float* sums = weight_sums_.start;
    const int weights = WEIGHT_SUMS[layer];
    for (int k = 0; k < weights; k += 16) {
      __m512 sum = _mm512_load_ps(sums + k);
      for (int piece = 1; piece < pieces(count_); piece++)
        sum = _mm512_add_ps(sum, _mm512_load_ps(sums + piece * weights + k));
      _mm512_store_ps(sums + k, sum);
    }
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
  void spread_over_pixels(int i, const float* d_logits, float* sums) {
    u32* to = gradient(CLASSIFIER, i);
    for (int c = 0; c < 5; c++) {
      const __m512i both =
          _mm512_set1_epi32(int(pair_bf16(d_logits[2 * c] / 49, d_logits[2 * c + 1] / 49)));
      for (int v = 0; v < G7::VECTORS; v++)
        _mm512_storeu_si512(to + c * G7::FLAT + v * 16, both);
    }
    gate<G7, 5>(to, raw(CLASSIFIER, i), norm_[CLASSIFIER], {}, sums);
  }

  int count_ = 0;
  u32 dropped_ = 0, seed_ = 0;
  Norm norm_[LAYERS];
  u32* raw_[LAYERS];
  u32* gradient_[LAYERS];
  Buffer<u32> skip_gradient_;  // of block 2's input
  Buffer<u16> plain_pixels_;
  Buffer<float> sums_, weight_sums_;  // a piece
  std::vector<std::unique_ptr<Worker>> workers_;  // a thread
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
                           float momentum, float dropout, uint32_t seed, float* logits) {
  network->train_forward(images, count, weights, gamma, beta, dropout, seed, logits);
  for (int l = 0; l < native::LAYERS; l++) {
    const native::Norm& norm = network->norm(l);
    const float n = float(count) * native::PIXELS[l];
    for (int o = 0; o < native::CHANNELS[l]; o++) {
      mean[l][o] += momentum * (norm.mean[o] - mean[l][o]);
      variance[l][o] += momentum * (norm.variance[o] * n / (n - 1) - variance[l][o]);
    }
  }
}

// For tests: which activations of image i a 3x3 layer's dropout kept, [channel][row][column].
void network_kept(const Network* network, int layer, int i, uint8_t* to) {
  const native::Dropout dropout = network->dropout(layer, i);
  const bool wide = layer <= native::BLOCK1, middle = layer == native::BLOCK2;
  const int side = wide ? 28 : middle ? 14 : 7;
  const int pitch = wide ? native::G28::PITCH : middle ? native::G14::PITCH : native::G7::PITCH;
  for (int c = 0; c < native::CHANNELS[layer]; c++)
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++) {
        const auto kept = dropout.kept(c / 2, y * pitch + x);
        *to++ = (c % 2 ? kept.high : kept.low) & 1;
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
