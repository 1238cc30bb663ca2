// A whole training step, from a batch's images and labels to the gradients. The batch is split into
// groups with their own batch-norm statistics ("ghost" batches, Hoffer et al. 2017).
//
// Groups are independent, so one thread takes a group through the whole network, forward and back,
// while its activations are in that thread's cache. With fewer groups than threads, all threads work
// on each group instead, layer by layer.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "network.hpp"
#include "pool.hpp"

namespace native {

// Number of images that a thread takes at a time (a turn), in one group or several. Their gradients
// are summed before they are added to those of other turns, in a fixed order, so that results are
// the same, bit for bit, for every number of threads.
constexpr int TURN = 16;

// The mean cross-entropy of a batch.
struct Loss {
  float smoothing;  // share of a label's mass spread over all ten classes
  float scale;      // factor of the gradients, in addition to 1 / images

  // The loss of one image, and the gradient of `share` times that loss.
  float operator()(const float* logits, int64_t label, float share, float* d_logits) const {
    const float most = *std::max_element(logits, logits + 10);
    float sum = 0, all = 0;
    for (int o = 0; o < 10; o++) {
      d_logits[o] = std::exp(logits[o] - most);
      sum += d_logits[o];
      all += logits[o] - most;
    }
    for (int o = 0; o < 10; o++) {
      const float wanted = smoothing / 10 + (o == label ? 1 - smoothing : 0);
      d_logits[o] = (d_logits[o] / sum - wanted) * share * scale;
    }
    return std::log(sum) - (1 - smoothing) * (logits[label] - most) - smoothing / 10 * all;
  }
};

// Addresses of a network's tensors: contiguous float32, torch's shapes, in the order of the layers.
struct Tensors {
  Parameters parameters;
  float *mean[LAYERS], *variance[LAYERS];  // running statistics
  // Gradients of the parameters; null for inference.
  float *d_weights[LAYERS], *d_gamma[LAYERS], *d_beta[LAYERS];
};

class Step {
 public:
  // `network` has room for `group` images.
  Step(std::unique_ptr<Network> network, int group) : group_(group) {
    networks_.push_back(std::move(network));
    for (int l = 0; l < LAYERS; l++) {
      const int taps = FAN_IN[l] % 9 ? 1 : 9, inputs = FAN_IN[l] / taps;
      const int start = networks_[0]->weights_at(l);
      for (int o = 0; o < CHANNELS[l]; o++)
        for (int c = 0; c < inputs; c++)
          for (int t = 0; t < taps; t++)
            places_[l].push_back(start + networks_[0]->place(l, o, c, t));
    }
  }

  Network& network() { return *networks_[0]; }
  const Network& network() const { return *networks_[0]; }

  // Computes the losses of the images, and the gradients of their mean. The running statistics move
  // by `momentum` towards each group's in turn, as in torch.nn.BatchNorm2d. Each group draws its
  // dropout masks with its own seed.
  void train(const float* images, const int64_t* labels, int count, const Tensors& tensors,
             const Loss& loss, float dropout, u32 seed, float momentum, float* losses) {
    const int groups = (count + group_ - 1) / group_, each = std::max(1, TURN / group_);
    const int turns = (groups + each - 1) / each;
    statistics_.resize(groups);
    sums_.resize(turns);
    network().pack(tensors.parameters);
    in_turns(turns, [&](Network& network, int t) {
      Sums& sums = sums_[t];
      sums.clear(network.weights_at(LAYERS));
      for (int g = t * each; g < std::min(groups, (t + 1) * each); g++) {
        const int start = g * group_, size = std::min(group_, count - start);
        std::vector<float> logits(size_t(size) * 10), d_logits(size_t(size) * 10);
        network.train_forward(images + size_t(start) * 784, size, tensors.parameters, dropout,
                              g ? mixed(seed + g) : seed, logits.data());
        for (int i = 0; i < size; i++)
          losses[start + i] = loss(&logits[i * 10], labels[start + i], 1.f / float(count),
                                   &d_logits[i * 10]);
        network.backward(d_logits.data(), sums.weights->start, sums.norms);
        statistics_[g].read(network, size);
      }
    });
    move_statistics(momentum, tensors);
    write_gradients(tensors);
  }

  // Sets the running statistics to the mean of those of all groups.
  void measure(const float* images, int count, const Tensors& tensors) {
    const int groups = (count + group_ - 1) / group_;
    statistics_.resize(groups);
    network().pack(tensors.parameters);
    in_turns(groups, [&](Network& network, int g) {
      const int start = g * group_, size = std::min(group_, count - start);
      std::vector<float> logits(size_t(size) * 10);
      network.train_forward(images + size_t(start) * 784, size, tensors.parameters, 0, 0,
                            logits.data());
      statistics_[g].read(network, size);
    });
    for (int l = 0; l < LAYERS; l++) {
      std::fill_n(tensors.mean[l], CHANNELS[l], 0.f);
      std::fill_n(tensors.variance[l], CHANNELS[l], 0.f);
      for (const Statistics& s : statistics_)
        for (int o = 0; o < CHANNELS[l]; o++) {
          tensors.mean[l][o] += s.mean[l][o] / float(groups);
          tensors.variance[l][o] += s.variance[l][o] / float(groups);
        }
    }
  }

 private:
  // Statistics of one group, by layer and channel; the variance is the unbiased one.
  struct Statistics {
    float mean[LAYERS][32], variance[LAYERS][32];

    void read(const Network& network, int images) {
      for (int l = 0; l < LAYERS; l++) {
        const Norm& norm = network.norm(l);
        const float n = float(images) * PIXELS[l];
        for (int o = 0; o < CHANNELS[l]; o++) {
          const int slot = network.slot(l, o);
          mean[l][o] = norm.mean[slot];
          variance[l][o] = norm.variance[slot] * n / (n - 1);
        }
      }
    }
  };
  // Sums of the gradients of one turn's images.
  struct Sums {
    std::unique_ptr<Buffer<float>> weights;
    NormGradients norms;

    void clear(int floats) {
      if (!weights) weights = std::make_unique<Buffer<float>>(floats);
      std::memset(weights->start, 0, floats * sizeof(float));
      norms = {};
    }
  };

  // Calls turn(network, t) for every turn: a thread each or, where there are fewer than threads, one
  // after the other with all threads.
  template <class Turn>
  void in_turns(int turns, const Turn& turn) {
    if (turns >= pool().threads()) {
      while (int(networks_.size()) < pool().threads())
        networks_.emplace_back(networks_[0]->sibling(group_));
      pool().run(turns, [&](int thread, int t) { turn(*networks_[thread], t); });
    } else {
      for (int t = 0; t < turns; t++) turn(network(), t);
    }
  }

  void move_statistics(float momentum, const Tensors& to) const {
    for (const Statistics& s : statistics_)
      for (int l = 0; l < LAYERS; l++)
        for (int o = 0; o < CHANNELS[l]; o++) {
          to.mean[l][o] += momentum * (s.mean[l][o] - to.mean[l][o]);
          to.variance[l][o] += momentum * (s.variance[l][o] - to.variance[l][o]);
        }
  }

  void write_gradients(const Tensors& tensors) {
    float* total = sums_[0].weights->start;
    NormGradients norms = sums_[0].norms;
    // A thread takes this many floats at a time.
    constexpr int CHUNK = 2048;
    const int floats = network().weights_at(LAYERS);
    pool().run((floats + CHUNK - 1) / CHUNK, [&](int, int chunk) {
      const int start = chunk * CHUNK, count = std::min(CHUNK, floats - start);
      for (size_t t = 1; t < sums_.size(); t++)
        network().add(sums_[t].weights->start + start, count, total + start);
    });
    for (size_t t = 1; t < sums_.size(); t++)
      for (int l = 0; l < LAYERS; l++)
        for (int o = 0; o < CHANNELS[l]; o++) {
          norms.gamma[l][o] += sums_[t].norms.gamma[l][o];
          norms.beta[l][o] += sums_[t].norms.beta[l][o];
        }
    for (int l = 0; l < LAYERS; l++) {
      std::memcpy(tensors.d_gamma[l], norms.gamma[l], CHANNELS[l] * sizeof(float));
      std::memcpy(tensors.d_beta[l], norms.beta[l], CHANNELS[l] * sizeof(float));
      float* to = tensors.d_weights[l];
      for (const int place : places_[l]) *to++ = total[place];
    }
  }

  const int group_;
  std::vector<std::unique_ptr<Network>> networks_;  // one per thread; siblings
  std::vector<Statistics> statistics_;              // one per group
  std::vector<Sums> sums_;                          // one per turn
  std::array<std::vector<int>, LAYERS> places_;     // indices of torch's weights in a turn's sums
};

}  // namespace native
