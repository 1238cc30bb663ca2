// One training step of the network in mnist_cnn/model.py: the order of the work. A derived class
// decides the memory layout of images and the instructions that multiply.
//
// The mathematics is that of torch's operators under bfloat16 autocast, with fewer passes over
// memory. Of the forward pass only the raw outputs of the convolutions are stored. Where a
// convolution or a gradient needs batch norm, ReLU and pooling, they are computed again from these,
// one image at a time and in cache.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>

#include "normalization.hpp"
#include "pool.hpp"

namespace native {

enum Layer { STEM, BLOCK1, TRANSITION1, BLOCK2, TRANSITION2, BLOCK3, CLASSIFIER, LAYERS };

constexpr int CHANNELS[LAYERS] = {18, 32, 18, 32, 18, 32, 10};
// Number of weights of an output channel: kernel taps times input channels.
constexpr int FAN_IN[LAYERS] = {9, 162, 32, 162, 32, 162, 32};
// Number of pixels per image over which batch norm averages.
constexpr int PIXELS[LAYERS] = {784, 784, 784, 196, 196, 49, 49};

// Number of images that a thread takes at a time (a piece): enough that clearing and adding its sums
// costs little, few enough that many threads have work. Each piece has its own sums, and these are
// added in a fixed order, so results are the same, bit for bit, for every number of threads.
constexpr int PIECE = 8;

// Seconds that all networks of this process have spent in each layer in training, forward and
// backward; the rest of a step is spent outside of layers. Where threads work in different layers,
// a second of one thread counts as one second divided by the number of threads.
inline std::atomic<double> layer_seconds[LAYERS][2];

// Adds its own lifetime to one of these.
class LayerTimer {
 public:
  LayerTimer(int layer, bool backward) : to_(layer_seconds[layer][backward]) {}
  LayerTimer(const LayerTimer&) = delete;
  ~LayerTimer() {
    const std::chrono::duration<double> lived = std::chrono::steady_clock::now() - start_;
    to_ += lived.count() / (Pool::at_work() ? pool().threads() : 1);
  }

 private:
  std::atomic<double>& to_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// The weights, scales and shifts of all layers, contiguous, in torch's order.
struct Parameters {
  const float *weights[LAYERS], *gamma[LAYERS], *beta[LAYERS];
};

// The gradients of scales and shifts, by channel. Those of weights are stored elsewhere, in the
// order of the derived class.
struct NormGradients {
  float gamma[LAYERS][32] = {}, beta[LAYERS][32] = {};
};

// to[k] += from[k], for a multiple of 16 values.
inline void add_floats(const float* from, int count, float* to) {
  for (int k = 0; k < count; k += 16)
    _mm512_store_ps(to + k, _mm512_add_ps(_mm512_load_ps(to + k), _mm512_load_ps(from + k)));
}

class Network {
 public:
  virtual ~Network() = default;
  Network(const Network&) = delete;

  // Another network, with room for `capacity` images, that uses the weights packed by this one. This
  // one must live longer.
  virtual std::unique_ptr<Network> sibling(int capacity) const = 0;

  // Packs the weights for the products of this network and its siblings.
  virtual void pack(const Parameters& parameters) = 0;

  // Batch norm uses the batch's own statistics, which norm() then returns. This goes layer by layer,
  // because the statistics of a batch need all its images.
  void train_forward(const float* images, int count, const Parameters& parameters, float dropout,
                     u32 seed, float* logits) {
    count_ = count;
    dropped_ = u32(std::lround(dropout * Dropout::STEPS));
    seed_ = seed;
    for (int l = 0; l < LAYERS; l++) {
      const LayerTimer timer(l, false);
      each_image(0, [&](int thread, int i, float* sums, float*) {
        convolve_layer(thread, l, i, images + size_t(i) * 784, sums);
      });
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].finish_forward(slot(l, o), total(l, o, 0), total(l, o, 1),
                                double(count) * PIXELS[l], parameters.gamma[l][o], parameters.beta[l][o]);
    }
    each_image(0, [&](int, int i, float*, float*) { average_pixels(i, logits + i * 10); });
  }

  // Batch norm uses the given statistics. This goes image by image, with the whole network in cache,
  // so the capacity only needs to be the number of threads.
  void infer(const float* images, int count, const Parameters& parameters,
             const float* const* mean, const float* const* variance, float* logits) {
    dropped_ = 0;
    for (int l = 0; l < LAYERS; l++)
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].set(slot(l, o), mean[l][o], variance[l][o], parameters.gamma[l][o],
                     parameters.beta[l][o]);
    grow_workers(pool().threads());
    pool().run(pieces(count), [&](int thread, int piece) {
      const Turn turn(*this);
      for (int i = piece * PIECE; i < std::min(count, (piece + 1) * PIECE); i++) {
        for (int l = 0; l < LAYERS; l++)
          convolve_layer(thread, l, thread, images + size_t(i) * 784, nullptr);
        average_pixels(thread, logits + i * 10);
      }
    });
  }

  // Adds the gradients of the batch last passed to train_forward. Those of the weights go to
  // `weights`, each layer's from its `weights_at` on, in the order of `place`.
  void backward(const float* d_logits, float* weights, NormGradients& norms) {
    each_image(0, [&](int, int i, float* sums, float*) {
      spread_over_pixels(i, d_logits + i * 10, sums);
    });
    for (int l = LAYERS - 1; l >= 0; l--) {
      const LayerTimer timer(l, true);
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].finish_backward(slot(l, o), total(l, o, 0), total(l, o, 1),
                                 double(count_) * PIXELS[l], norms.gamma[l] + o, norms.beta[l] + o);
      float* to = weights + weights_at(l);
      if (sums_weights(l))
        each_image(weight_floats(l), [&](int thread, int i, float* sums, float* weight_sums) {
          backward_layer(thread, l, i, sums, weight_sums);
        }, to);
      else
        add_weight_gradient(l, to);
    }
  }
  // Number of floats of a layer's weight gradient, a multiple of 16; and the index among them of
  // torch's weight from an input channel to an output channel, by tap of the kernel.
  virtual int weight_floats(int layer) const = 0;
  virtual int place(int layer, int output, int input, int tap) const = 0;
  int weights_at(int layer) const {
    int at = 0;
    for (int l = 0; l < layer; l++) at += weight_floats(l);
    return at;
  }

  const Norm& norm(int layer) const { return norm_[layer]; }
  // Index of a layer's channel in its Norm.
  virtual int slot(int layer, int channel) const = 0;

  // For tests: mask of the activations of image i that a 3x3 layer's dropout kept,
  // [channel][row][column].
  virtual void kept(int layer, int i, uint8_t* to) const = 0;

 protected:
  // sums: number of floats of a piece's sums of one layer; weight_sums: the largest number for the
  // sums of its weight gradient.
  Network(int capacity, int sums, int weight_sums)
      : sums_per_piece_(sums),
        sums_(size_t(pieces(capacity)) * sums),
        weight_sums_(pieces(capacity) > 1 ? size_t(pieces(capacity)) * weight_sums : 0) {}

  // Called by a thread before and after each piece of work.
  virtual void begin_turn() const {}
  virtual void end_turn() const {}
  virtual void grow_workers(int threads) = 0;
  // Computes a layer's raw outputs for image i from those of the layers before it. Adds to sums, if
  // there are any.
  virtual void convolve_layer(int thread, int layer, int i, const float* image, float* sums) = 0;
  // Takes the gradient of a layer's activations, after its ReLU's mask. Adds to the gradient of its
  // weights, and computes the masked gradient of its input's activations, and their sums.
  virtual void backward_layer(int thread, int layer, int i, float* sums, float* weight_sums) = 0;
  // logits[o] = mean over the pixels of relu(norm(classifier)), and its gradient.
  virtual void average_pixels(int i, float* logits) = 0;
  virtual void spread_over_pixels(int i, const float* d_logits, float* sums) = 0;
  // One of the two sums of a channel, by its slot, in one piece's sums: forward those of y and y * y,
  // backward those of dy and dy * y.
  virtual double sum(const float* sums, int slot, int which) const = 0;
  // Whether a layer's weight gradient is summed image by image; if not, it follows from sums of
  // earlier passes.
  virtual bool sums_weights(int) const { return true; }
  virtual void add_weight_gradient(int, float*) {}

  static int pieces(int count) { return (count + PIECE - 1) / PIECE; }
  // A layer's dropout of an image of the batch last passed to train_forward. Only 3x3 blocks have
  // dropout.
  Dropout dropout(int layer, int i) const {
    if (layer == TRANSITION1 || layer == TRANSITION2) return {};
    return {mixed(seed_ ^ mixed(u32(i * LAYERS + layer))), dropped_,
            Dropout::STEPS / (Dropout::STEPS - float(dropped_))};
  }

  int count() const { return count_; }

  Norm norm_[LAYERS] = {};

 private:
  struct Turn {
    const Network& network;
    explicit Turn(const Network& n) : network(n) { network.begin_turn(); }
    ~Turn() { network.end_turn(); }
  };
  // Calls work(thread, image, the piece's sums, the piece's weight sums). The sums are zero at first.
  // There are `weights` weight sums, which are added to those at `to` in the end.
  template <class Work>
  void each_image(int weights, Work work, float* to = nullptr) {
    grow_workers(pool().threads());
    const bool direct = pieces(count_) == 1;
    pool().run(pieces(count_), [&](int thread, int piece) {
      const Turn turn(*this);
      float* sums = sums_.start + size_t(piece) * sums_per_piece_;
      float* weight_sums = direct ? to : weight_sums_.start + size_t(piece) * weights;
      std::memset(sums, 0, sums_per_piece_ * sizeof(float));
      if (!direct) std::memset(weight_sums, 0, weights * sizeof(float));
      const int end = std::min(count_, (piece + 1) * PIECE);
      for (int i = piece * PIECE; i < end; i++) work(thread, i, sums, weight_sums);
    });
    if (!direct && weights)
      for (int piece = 0; piece < pieces(count_); piece++)
        add_floats(weight_sums_.start + size_t(piece) * weights, weights, to);
  }
  double total(int layer, int channel, int which) const {
    double total = 0;
    for (int piece = 0; piece < pieces(count_); piece++)
      total += sum(sums_.start + size_t(piece) * sums_per_piece_, slot(layer, channel),
                   which);
    return total;
  }
  const int sums_per_piece_;
  Buffer<float> sums_, weight_sums_;  // a piece
  int count_ = 0;
  u32 dropped_ = 0, seed_ = 0;
};

// Make a network with its own weights and room for a batch of `capacity` images.
std::unique_ptr<Network> avx512_network(int capacity);
std::unique_ptr<Network> amx_network(int capacity);
// Whether this processor and this system have matrix tiles; requests them from the system.
bool amx_supported();

}  // namespace native
