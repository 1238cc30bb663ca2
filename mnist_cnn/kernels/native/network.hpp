// One training step of the network in mnist_cnn/model.py: the order of the work. How images lie in
// memory and what multiplies them is a derived class's.
//
// Same mathematics as the plain path under bfloat16 autocast; what differs is how often memory is
// passed over. A layer's raw convolution outputs are all that is kept of the forward pass: batch
// norm, ReLU and pooling are computed again from them, an image at a time and in cache, where a
// convolution or a gradient needs them.
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
// Kernel taps by input channels: what an output's weights are.
constexpr int FAN_IN[LAYERS] = {9, 162, 32, 162, 32, 162, 32};
// Pixels an image batch norm averages over.
constexpr int PIXELS[LAYERS] = {784, 784, 784, 196, 196, 49, 49};

// Images a thread takes at a time: enough that clearing and adding its sums does not show, few
// enough that many threads have work. Sums are kept for each such piece and added in the same order
// whoever made them, so results are the same, bit for bit, for every number of threads.
constexpr int PIECE = 8;

// Seconds that all networks of this process have spent in each layer while training, forward and
// backward; what is left of a step is spent around them. Where threads are in layers of their own,
// each second of one counts as its share of all threads'.
inline std::atomic<double> layer_seconds[LAYERS][2];

// Adds the time that it lives to one of them.
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

// Their gradients, of scales and shifts by channel; those of weights are elsewhere, in the order of
// the class that made them.
struct NormGradients {
  float gamma[LAYERS][32] = {}, beta[LAYERS][32] = {};
};

// to[k] += from[k], of a multiple of 16.
inline void add_floats(const float* from, int count, float* to) {
  for (int k = 0; k < count; k += 16)
    _mm512_store_ps(to + k, _mm512_add_ps(_mm512_load_ps(to + k), _mm512_load_ps(from + k)));
}

class Network {
 public:
  virtual ~Network() = default;
  Network(const Network&) = delete;

  // Another one, with room for so many images, that computes with the weights packed by this one,
  // which is to live longer.
  virtual std::unique_ptr<Network> sibling(int capacity) const = 0;

  // Keeps the weights as the products of this and its siblings read them.
  virtual void pack(const Parameters& parameters) = 0;

  // Batch norm by the batch's own statistics, which norm() then holds. Layer by layer: a batch's
  // statistics are known once all its images have passed.
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

  // Batch norm by the given statistics. Image by image, the whole network in cache: the capacity
  // need only be the number of threads.
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

  // Adds the gradients for the batch last passed to train_forward: of weights to `weights`, each
  // layer's from its `weights_at` on, in the order that `place` tells.
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
  // Floats of a layer's weight gradient, a multiple of 16, and where among them torch's weight from
  // an input channel to an output channel is, by tap of the kernel.
  virtual int weight_floats(int layer) const = 0;
  virtual int place(int layer, int output, int input, int tap) const = 0;
  int weights_at(int layer) const {
    int at = 0;
    for (int l = 0; l < layer; l++) at += weight_floats(l);
    return at;
  }

  const Norm& norm(int layer) const { return norm_[layer]; }
  // Where a layer's channel is in its Norm.
  virtual int slot(int layer, int channel) const = 0;

  // For tests: which activations of image i a 3x3 layer's dropout kept, [channel][row][column].
  virtual void kept(int layer, int i, uint8_t* to) const = 0;

 protected:
  // sums: floats that a piece's sums of one layer take; weight_sums: those of its weight gradient
  // at most.
  Network(int capacity, int sums, int weight_sums)
      : sums_per_piece_(sums),
        sums_(size_t(pieces(capacity)) * sums),
        weight_sums_(pieces(capacity) > 1 ? size_t(pieces(capacity)) * weight_sums : 0) {}

  // What a thread does before and after each piece of work.
  virtual void begin_turn() const {}
  virtual void end_turn() const {}
  virtual void grow_workers(int threads) = 0;
  // A layer's raw outputs for image i from those of the layers before it. Adds to sums, if any.
  virtual void convolve_layer(int thread, int layer, int i, const float* image, float* sums) = 0;
  // From the gradient of a layer's activations, already gated by its ReLU: adds to the gradient of
  // its weights and leaves the gradient of its input's activations, gated, with their sums.
  virtual void backward_layer(int thread, int layer, int i, float* sums, float* weight_sums) = 0;
  // logits[o] = mean over the pixels of relu(norm(classifier)), and its gradient.
  virtual void average_pixels(int i, float* logits) = 0;
  virtual void spread_over_pixels(int i, const float* d_logits, float* sums) = 0;
  // One of the two sums of a channel, given by its slot, in one piece's sums: forward of y and y * y,
  // backward of dy and dy * y.
  virtual double sum(const float* sums, int slot, int which) const = 0;
  // Whether a layer's weight gradient is summed image by image; otherwise earlier passes have left
  // what it follows from.
  virtual bool sums_weights(int) const { return true; }
  virtual void add_weight_gradient(int, float*) {}

  static int pieces(int count) { return (count + PIECE - 1) / PIECE; }
  // What a layer's dropout did, or will do, to an image of the batch last passed to train_forward.
  // Only 3x3 blocks have any.
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
  // work(thread, image, its piece's sums, its piece's weight sums), the former zero at first; of the
  // latter there are `weights`, in the end added to those at `to`.
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

// Each with room for a batch of `capacity` images, and weights of its own.
std::unique_ptr<Network> avx512_network(int capacity);
std::unique_ptr<Network> amx_network(int capacity);
// Whether this processor and this system have matrix tiles; asks the system for them.
bool amx_supported();

}  // namespace native
