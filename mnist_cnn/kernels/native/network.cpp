// The order of a training step's work, and batch norm's statistics.

#include "network.hpp"

#include <algorithm>
#include <cmath>

#include "layer_timer.hpp"
#include "pool.hpp"

namespace native {

std::atomic<double> layer_seconds[LAYERS][2];

namespace {

// Batch norm. Sources: Ioffe & Szegedy 2015; torch.nn.BatchNorm2d, its default epsilon.
void set(Norm& norm, int o, float mean, float variance, float gamma, float beta) {
  norm.mean[o] = mean;
  norm.variance[o] = variance;
  norm.inverse[o] = 1 / std::sqrt(variance + 1e-5f);
  norm.scale[o] = gamma * norm.inverse[o];
  norm.shift[o] = beta - mean * norm.scale[o];
}
// Sets channel o from the sums of y and of y * y over `count` values.
void finish_forward(Norm& norm, int o, double sum, double squares, double count, float gamma,
                    float beta) {
  const double mean = sum / count;
  set(norm, o, float(mean), float(std::max(0.0, squares / count - mean * mean)), gamma, beta);
}
// Uses the sums of dy and of dy * y; adds to the gradients of gamma and beta.
void finish_backward(Norm& norm, int o, double sum, double dot, double count, float* dgamma,
                     float* dbeta) {
  const double dg = norm.inverse[o] * (dot - double(norm.mean[o]) * sum);
  *dgamma += float(dg);
  *dbeta += float(sum);
  norm.a[o] = norm.scale[o];
  norm.b[o] = float(-double(norm.scale[o]) * norm.inverse[o] * dg / count);
  norm.c[o] = float(-double(norm.scale[o]) * sum / count - double(norm.b[o]) * norm.mean[o]);
}

}  // namespace

void* zeroed(size_t bytes) {
  const size_t whole = (std::max(bytes, size_t(1)) + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, whole);
  if (!p) std::abort();
  return std::memset(p, 0, whole);
}

u32 mixed(u32 x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

Network::~Network() = default;

Network::Network(int capacity, int sums, int weight_sums)
    : sums_per_piece_(sums),
      sums_(size_t(pieces(capacity)) * sums),
      weight_sums_(pieces(capacity) > 1 ? size_t(pieces(capacity)) * weight_sums : 0) {}

// Calls work(thread, image, the piece's sums, the piece's weight sums). The sums are zero at first.
// There are `weights` weight sums, which are added to those at `to` in the end.
template <class Work>
void Network::each_image(int weights, Work work, float* to) {
  struct Turn {
    const Network& network;
    explicit Turn(const Network& n) : network(n) { network.begin_turn(); }
    ~Turn() { network.end_turn(); }
  };
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
      add(weight_sums_.start + size_t(piece) * weights, weights, to);
}

void Network::train_forward(const float* images, int count, const Parameters& parameters,
                            float dropout, u32 seed, float* logits) {
  count_ = count;
  dropped_ = u32(std::lround(dropout * Dropout::STEPS));
  seed_ = seed;
  for (int l = 0; l < LAYERS; l++) {
    const LayerTimer timer(l, false);
    each_image(0, [&](int thread, int i, float* sums, float*) {
      convolve_layer(thread, l, i, images + size_t(i) * 784, sums);
    });
    for (int o = 0; o < CHANNELS[l]; o++)
      finish_forward(norm_[l], slot(l, o), total(l, o, 0), total(l, o, 1),
                     double(count) * PIXELS[l], parameters.gamma[l][o], parameters.beta[l][o]);
  }
  each_image(0, [&](int, int i, float*, float*) { average_pixels(i, logits + i * 10); });
}

void Network::infer(const float* images, int count, const Parameters& parameters,
                    const float* const* mean, const float* const* variance, float* logits) {
  dropped_ = 0;
  for (int l = 0; l < LAYERS; l++)
    for (int o = 0; o < CHANNELS[l]; o++)
      set(norm_[l], slot(l, o), mean[l][o], variance[l][o], parameters.gamma[l][o],
          parameters.beta[l][o]);
  grow_workers(pool().threads());
  pool().run(pieces(count), [&](int thread, int piece) {
    begin_turn();
    for (int i = piece * PIECE; i < std::min(count, (piece + 1) * PIECE); i++) {
      for (int l = 0; l < LAYERS; l++)
        convolve_layer(thread, l, thread, images + size_t(i) * 784, nullptr);
      average_pixels(thread, logits + i * 10);
    }
    end_turn();
  });
}

void Network::backward(const float* d_logits, float* weights, NormGradients& norms) {
  each_image(0, [&](int, int i, float* sums, float*) {
    spread_over_pixels(i, d_logits + i * 10, sums);
  });
  for (int l = LAYERS - 1; l >= 0; l--) {
    const LayerTimer timer(l, true);
    for (int o = 0; o < CHANNELS[l]; o++)
      finish_backward(norm_[l], slot(l, o), total(l, o, 0), total(l, o, 1),
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

void Network::begin_turn() const {}
void Network::end_turn() const {}
bool Network::sums_weights(int) const { return true; }
void Network::add_weight_gradient(int, float*) {}

int Network::weights_at(int layer) const {
  int at = 0;
  for (int l = 0; l < layer; l++) at += weight_floats(l);
  return at;
}

Dropout Network::dropout(int layer, int i) const {
  if (layer == TRANSITION1 || layer == TRANSITION2) return {};
  return {mixed(seed_ ^ mixed(u32(i * LAYERS + layer))), dropped_,
          Dropout::STEPS / (Dropout::STEPS - float(dropped_))};
}

double Network::total(int layer, int channel, int which) const {
  double total = 0;
  for (int piece = 0; piece < pieces(count_); piece++)
    total += sum(sums_.start + size_t(piece) * sums_per_piece_, slot(layer, channel), which);
  return total;
}

}  // namespace native
