// The functions that Python calls through ctypes: see library.py.

#include "step.hpp"

using native::Step, native::Tensors;

extern "C" {

// SHA-256 of the source files of this library.
const char* sources() { return SOURCES; }

// Whether this processor has the instructions of this library, and whether it also has matrix tiles.
int supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
}
int tiles_supported() { return native::amx_supported(); }

// group: number of images in a batch-norm group; for inference only, the number of threads.
Step* step_new(int group, int tiles) {
  return std::make_unique<Step>(tiles ? native::amx_network(group) : native::avx512_network(group),
                                group)
      .release();
}

void step_free(Step* step) { delete step; }

void step_train(Step* step, const Tensors* t, const float* images, const int64_t* labels, int count,
                float smoothing, float scale, float dropout, uint32_t seed, float momentum,
                float* losses) {
  step->train(images, labels, count, *t, {smoothing, scale}, dropout, seed, momentum, losses);
}

void step_infer(Step* step, const Tensors* t, const float* images, int count, float* logits) {
  step->network().pack(t->parameters);
  step->network().infer(images, count, t->parameters, t->mean, t->variance, logits);
}

// p -= rate * (g + momentum * velocity), after g += decay * p and velocity = momentum * velocity + g:
// torch.optim.SGD with Nesterov momentum (Sutskever et al. 2013).
void sgd(float* p, float* velocity, const float* gradient, int count, float rate, float momentum,
         float decay) {
  for (int k = 0; k < count; k++) {
    const float g = gradient[k] + decay * p[k];
    velocity[k] = momentum * velocity[k] + g;
    p[k] -= rate * (g + momentum * velocity[k]);
  }
}

// Seconds of each layer, forward and backward, since the last call: [7][2].
void take_layer_seconds(double* to) {
  for (auto& layer : native::layer_seconds)
    for (auto& seconds : layer) *to++ = seconds.exchange(0);
}

// For tests: see Network::kept.
void step_kept(const Step* step, int layer, int i, uint8_t* to) {
  step->network().kept(layer, i, to);
}

}  // extern "C"
