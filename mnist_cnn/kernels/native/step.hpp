// A whole training step, from a batch's images and labels to the gradients: the batch gone through
// in groups whose statistics batch norm takes together ("ghost" batches, Hoffer et al. 2017).
//
// A group is independent of the others, so a thread takes one through the whole network, forward
// and back, while its activations are in that thread's cache. With fewer groups than threads, all
// threads work on each group instead, layer by layer.
#pragma once

#include <array>
#include <cmath>

#include "network.hpp"

namespace native {

// Images that a thread takes at a time, in one group or several: their gradients are added up
// before they are added to those of others, always in the same order, so that results are the same,
// bit for bit, for every number of threads.
constexpr int TURN = 16;

// The mean cross-entropy of a batch.
struct Loss {
  float smoothing;  // share of a label's mass that is spread over all ten classes
  float scale;      // what gradients are multiplied by, beside 1 / images

  // Of one image: its loss, and the gradient of `share` times it.
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

// Where a network's tensors are: contiguous float32, torch's shapes, in the order of the layers.
struct Tensors {
  Parameters parameters;
  float *mean[LAYERS], *variance[LAYERS];  // running statistics
  // Gradients of the parameters; may be missing where none are asked for.
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

  // Losses of the images, and the gradients of their mean. The running statistics move by
  // `momentum` towards each group's in turn, as torch.nn.BatchNorm2d's do. Of dropout's masks, a
  // group's are drawn by a seed of its own.
  void train(const float* images, const int64_t* labels, int count, const Tensors& tensors,
             const Loss& loss, float dropout, u32 seed, float momentum, float* losses) {
    const int groups = (count + group_ - 1) / group_, each = std::max(1, TURN / group_);
    const int turns = (groups + each - 1) / each;
    statistics_.resize(groups);
    sums_.resize(turns);
    network().pack(tensors.parameters);

    auto turn = [&](Network& network, int t) {
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
    };
    if (turns >= pool().threads()) {
      while (int(networks_.size()) < pool().threads())
        networks_.push_back(networks_[0]->sibling(group_));
      pool().run(turns, [&](int thread, int t) { turn(*networks_[thread], t); });
    } else {
      for (int t = 0; t < turns; t++) turn(network(), t);
    }
    move_statistics(momentum, tensors);
    write_gradients(tensors);
  }

 private:
  // Of one group, by layer and channel; the variance is the unbiased one.
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
  // Of the gradients of one turn's images.
  struct Sums {
    std::unique_ptr<Buffer<float>> weights;
    NormGradients norms;

    void clear(int floats) {
      if (!weights) weights = std::make_unique<Buffer<float>>(floats);
      std::memset(weights->start, 0, floats * sizeof(float));
      norms = {};
    }
  };

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
    // Every so many floats are one thread's work.
    constexpr int CHUNK = 2048;
    const int floats = network().weights_at(LAYERS);
    pool().run((floats + CHUNK - 1) / CHUNK, [&](int, int chunk) {
      const int start = chunk * CHUNK, count = std::min(CHUNK, floats - start);
      for (size_t t = 1; t < sums_.size(); t++)
        add_floats(sums_[t].weights->start + start, count, total + start);
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
  std::vector<std::unique_ptr<Network>> networks_;  // a thread; siblings
  std::vector<Statistics> statistics_;              // a group
  std::vector<Sums> sums_;                          // a turn
  std::array<std::vector<int>, LAYERS> places_;     // of torch's weights among a turn's sums
};

}  // namespace native
