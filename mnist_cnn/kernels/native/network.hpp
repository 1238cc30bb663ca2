// One training step of the network in mnist_cnn/model.py: the order of the work. A derived class
// decides the memory layout of images and the instructions that multiply.
//
// The mathematics is that of torch's operators under bfloat16 autocast, with fewer passes over
// memory. Of the forward pass only the raw outputs of the convolutions are stored. Where a
// convolution or a gradient needs batch norm, ReLU and pooling, they are computed again from these,
// one image at a time and in cache.
//
// Files of any instruction set include this, so nothing here is defined but data: functions that the
// linker could take from any of those files are in network.cpp.
#pragma once

#include "bfloat16.hpp"
#include "buffer.hpp"

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

// The weights, scales and shifts of all layers, contiguous, in torch's order.
struct Parameters {
  const float *weights[LAYERS], *gamma[LAYERS], *beta[LAYERS];
};

// The gradients of scales and shifts, by channel. Those of weights are stored elsewhere, in the
// order of the derived class.
struct NormGradients {
  float gamma[LAYERS][32] = {}, beta[LAYERS][32] = {};
};

// Batch norm of one layer, by slot of the channel.
struct Norm {
  float mean[32], variance[32], inverse[32], scale[32], shift[32];
  float a[32], b[32], c[32];  // d raw = a * dy + b * raw + c
};

// One layer's dropout of one image's activations.
struct Dropout {
  u32 key = 0;
  u32 dropped = 0;  // of STEPS; 0: no dropout
  float scale = 1;  // factor of the kept values

  static constexpr float STEPS = 65536;
};

constexpr int pieces(int count) { return (count + PIECE - 1) / PIECE; }

// The mixing function "lowbias32" (Wellons 2018, "Prospecting for hash functions").
u32 mixed(u32 x);

class Network {
 public:
  virtual ~Network();
  Network(const Network&) = delete;

  // Another network, with room for `capacity` images, that uses the weights packed by this one. This
  // one must live longer.
  virtual Network* sibling(int capacity) const = 0;

  // Packs the weights for the products of this network and its siblings.
  virtual void pack(const Parameters& parameters) = 0;

  // Batch norm uses the batch's own statistics, which norm() then returns. This goes layer by layer,
  // because the statistics of a batch need all its images.
  void train_forward(const float* images, int count, const Parameters& parameters, float dropout,
                     u32 seed, float* logits);

  // Batch norm uses the given statistics. This goes image by image, with the whole network in cache,
  // so the capacity only needs to be the number of threads.
  void infer(const float* images, int count, const Parameters& parameters,
             const float* const* mean, const float* const* variance, float* logits);

  // Adds the gradients of the batch last passed to train_forward. Those of the weights go to
  // `weights`, each layer's from its `weights_at` on, in the order of `place`.
  void backward(const float* d_logits, float* weights, NormGradients& norms);

  // Number of floats of a layer's weight gradient, a multiple of 16; and the index among them of
  // torch's weight from an input channel to an output channel, by tap of the kernel.
  virtual int weight_floats(int layer) const = 0;
  virtual int place(int layer, int output, int input, int tap) const = 0;
  int weights_at(int layer) const;

  // to[k] += from[k], for a multiple of 16 values.
  virtual void add(const float* from, int count, float* to) const = 0;

  const Norm& norm(int layer) const { return norm_[layer]; }
  // Index of a layer's channel in its Norm.
  virtual int slot(int layer, int channel) const = 0;

  // For tests: mask of the activations of image i that a 3x3 layer's dropout kept,
  // [channel][row][column].
  virtual void kept(int layer, int i, uint8_t* to) const = 0;

 protected:
  // sums: number of floats of a piece's sums of one layer; weight_sums: the largest number for the
  // sums of its weight gradient.
  Network(int capacity, int sums, int weight_sums);

  // Called by a thread before and after each piece of work.
  virtual void begin_turn() const;
  virtual void end_turn() const;
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
  virtual bool sums_weights(int layer) const;
  virtual void add_weight_gradient(int layer, float* to);

  // A layer's dropout of an image of the batch last passed to train_forward. Only 3x3 blocks have
  // dropout.
  Dropout dropout(int layer, int i) const;

  int count() const { return count_; }

  Norm norm_[LAYERS] = {};

 private:
  template <class Work>
  void each_image(int weights, Work work, float* to = nullptr);
  double total(int layer, int channel, int which) const;

  const int sums_per_piece_;
  Buffer<float> sums_, weight_sums_;  // a piece
  int count_ = 0;
  u32 dropped_ = 0, seed_ = 0;
};

}  // namespace native
