// What Python calls, by ctypes: see __init__.py. Arrays of seven pointers each are in the order of
// the layers: contiguous float32, torch's shapes.

#include <utility>

#include "network.hpp"

using native::Network;

extern "C" {

// SHA-256 of the files this was compiled from.
const char* sources() { return SOURCES; }

// Whether this processor has the instructions that this library is made of, and whether it has the
// matrix tiles too.
int supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}
int tiles_supported() { return native::amx_supported(); }

Network* network_new(int capacity, int tiles) {
  return (tiles ? native::amx_network(capacity) : native::avx512_network(capacity)).release();
}

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
      const int s = network->slot(l, o);
      mean[l][o] += momentum * (norm.mean[s] - mean[l][o]);
      variance[l][o] += momentum * (norm.variance[s] * n / (n - 1) - variance[l][o]);
    }
  }
}

// The seconds of each layer, forward and backward, since they were last taken: [7][2].
void take_layer_seconds(double* to) {
  for (auto& layer : native::layer_seconds)
    for (double& seconds : layer) *to++ = std::exchange(seconds, 0);
}

void network_kept(const Network* network, int layer, int i, uint8_t* to) {
  network->kept(layer, i, to);
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
