// One training step of the network in mnist_cnn/model.py: the order of the work. How images lie in
// memory and what multiplies them is a derived class's.
//
// Same mathematics as the plain path under bfloat16 autocast; what differs is how often memory is
// passed over. A layer's raw convolution outputs are all that is kept of the forward pass: batch
// norm, ReLU and pooling are computed again from them, an image at a time and in cache, where a
// convolution or a gradient needs them.
#pragma once

#include <algorithm>
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
// backward; what is left of a step is spent around them.
inline double layer_seconds[LAYERS][2];

// Adds the time that it lives to one of them.
class LayerTimer {
 public:
  LayerTimer(int layer, bool backward) : to_(layer_seconds[layer][backward]) {}
  LayerTimer(const LayerTimer&) = delete;
  ~LayerTimer() {
    to_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double& to_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

class Network {
 public:
  virtual ~Network() = default;
  Network(const Network&) = delete;

  // Batch norm by the batch's own statistics, which norm() then holds. Layer by layer: a batch's
  // statistics are known once all its images have passed.
  void train_forward(const float* images, int count, const float* const* weights,
                     const float* const* gamma, const float* const* beta, float dropout, u32 seed,
                     float* logits) {
    count_ = count;
    dropped_ = u32(std::lround(dropout * Dropout::STEPS));
    seed_ = seed;
    pack(weights, gamma);
    for (int l = 0; l < LAYERS; l++) {
      const LayerTimer timer(l, false);
      each_image(0, [&](int thread, int i, float* sums, float*) {
        convolve_layer(thread, l, i, images + size_t(i) * 784, sums);
      });
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].finish_forward(slot(l, o), total(l, o, 0), total(l, o, 1),
                                double(count) * PIXELS[l], gamma[l][o], beta[l][o]);
    }
    each_image(0, [&](int, int i, float*, float*) { average_pixels(i, logits + i * 10); });
  }

  // Batch norm by the given statistics. Image by image, the whole network in cache: the capacity
  // need only be the number of threads.
  void infer(const float* images, int count, const float* const* weights,
             const float* const* gamma, const float* const* beta, const float* const* mean,
             const float* const* variance, float* logits) {
    dropped_ = 0;
    pack(weights, gamma);
    for (int l = 0; l < LAYERS; l++)
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].set(slot(l, o), mean[l][o], variance[l][o], gamma[l][o], beta[l][o]);
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

  // Gradients of weights, scales and shifts for the batch last passed to train_forward.
  void backward(const float* d_logits, float* const* d_weights, float* const* d_gamma,
                float* const* d_beta) {
    each_image(0, [&](int, int i, float* sums, float*) {
      spread_over_pixels(i, d_logits + i * 10, sums);
    });
    for (int l = LAYERS - 1; l >= 0; l--) {
      const LayerTimer timer(l, true);
      for (int o = 0; o < CHANNELS[l]; o++)
        norm_[l].finish_backward(slot(l, o), total(l, o, 0), total(l, o, 1),
                                 double(count_) * PIXELS[l], d_gamma[l] + o, d_beta[l] + o);
      if (weight_sums(l))
        each_image(weight_sums(l), [&](int thread, int i, float* sums, float* weight_sums) {
          backward_layer(thread, l, i, sums, weight_sums);
        });
      write_weight_gradient(l, added_weight_sums(weight_sums(l)), d_weights[l]);
    }
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
        weight_sums_(size_t(pieces(capacity)) * weight_sums) {}

  // What a thread does before and after each piece of work.
  virtual void begin_turn() const {}
  virtual void end_turn() const {}
  virtual void grow_workers(int threads) = 0;
  // Keeps the weights as its products read them.
  virtual void pack(const float* const* weights, const float* const* gamma) = 0;
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
  // Floats of a layer's weight gradient in the class's own order, and from that to torch's. 0: an
  // earlier pass has left what is needed.
  virtual int weight_sums(int layer) const = 0;
  virtual void write_weight_gradient(int layer, const float* sums, float* to) = 0;

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
  // work(thread, image, its piece's sums, its piece's weight sums), both zero at first; weights
  // says how many of the latter there are.
  template <class Work>
  void each_image(int weights, Work work) {
    grow_workers(pool().threads());
    pool().run(pieces(count_), [&](int thread, int piece) {
      const Turn turn(*this);
      float* sums = sums_.start + size_t(piece) * sums_per_piece_;
      float* weight_sums = weight_sums_.start + size_t(piece) * weights;
      std::memset(sums, 0, sums_per_piece_ * sizeof(float));
      std::memset(weight_sums, 0, weights * sizeof(float));
      const int end = std::min(count_, (piece + 1) * PIECE);
      for (int i = piece * PIECE; i < end; i++) work(thread, i, sums, weight_sums);
    });
  }
  double total(int layer, int channel, int which) const {
    double total = 0;
    for (int piece = 0; piece < pieces(count_); piece++)
      total += sum(sums_.start + size_t(piece) * sums_per_piece_, slot(layer, channel),
                   which);
    return total;
  }
  const float* added_weight_sums(int weights) {
    float* sums = weight_sums_.start;
    for (int k = 0; k < weights; k += 16) {
      __m512 sum = _mm512_load_ps(sums + k);
      for (int piece = 1; piece < pieces(count_); piece++)
        sum = _mm512_add_ps(sum, _mm512_load_ps(sums + piece * weights + k));
      _mm512_store_ps(sums + k, sum);
    }
    return sums;
  }

  const int sums_per_piece_;
  Buffer<float> sums_, weight_sums_;  // a piece
  int count_ = 0;
  u32 dropped_ = 0, seed_ = 0;
};

// Each with room for a batch of `capacity` images.
std::unique_ptr<Network> avx512_network(int capacity);
std::unique_ptr<Network> amx_network(int capacity);
// Whether this processor and this system have matrix tiles; asks the system for them.
bool amx_supported();

}  // namespace native
