// The functions that Python calls through ctypes: see library.py.

#include <numeric>
#include <vector>

#include "instruction_sets.hpp"
#include "layer_timer.hpp"
#include "step.hpp"

using native::Network, native::Step, native::Tensors, native::instruction_set;

extern "C" {

// SHA-256 of the source files of this library.
const char* sources() { return SOURCES; }

// Names of the instruction sets in this library, separated by spaces, the fastest first; and whether
// this processor has those of that name. Other functions only take names of sets that it has.
const char* instruction_sets() { return native::instruction_set_names(); }
int runs(const char* name) {
  const native::InstructionSet* set = native::instruction_set(name);
  return set && native::runs(*set);
}

// Multiplies and adds from registers on all threads, `rounds` times on each; returns the number of
// operations: how fast the instructions are.
double multiply(const char* set, int rounds) {
  const int threads = native::pool().threads();
  std::vector<double> operations(threads);
  native::pool().run(threads, [&](int, int k) { operations[k] = instruction_set(set)->multiply(rounds); });
  return std::accumulate(operations.begin(), operations.end(), 0.);
}

// For tests: whether this code has no instruction that the processor does not know.
int executes(void (*code)()) { return native::executes(code); }

// group: number of images in a batch-norm group; for inference only, the number of threads.
Step* step_new(int group, const char* set) {
  return new Step(std::unique_ptr<Network>(instruction_set(set)->make_network(group)), group);
}

void step_free(Step* step) { delete step; }

void step_train(Step* step, const Tensors* t, const float* images, const int64_t* labels, int count,
                float smoothing, float scale, float dropout, uint32_t seed, float momentum,
                float* losses) {
  step->train(images, labels, count, *t, {smoothing, scale}, dropout, seed, momentum, losses);
}

void step_measure(Step* step, const Tensors* t, const float* images, int count) {
  step->measure(images, count, *t);
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

// out[i] = warped images[chosen[i]] * scale - offset. table: ten numbers an image, as
// mnist_cnn.augment.Distortions has them.
void augment(const char* set, const uint8_t* images, const int64_t* chosen, int count,
             const float* table, float scale, float offset, float* out) {
  constexpr int EACH = 16;
  const auto warp = instruction_set(set)->warp;
  native::pool().run((count + EACH - 1) / EACH, [&](int, int piece) {
    const int start = piece * EACH, end = std::min(count, start + EACH);
    // The images are scattered over 47 MB: prefetching all at once is faster than loading one by one.
    for (int i = start; i < end; i++)
      for (int byte = 0; byte < 784; byte += 64)
        __builtin_prefetch(images + chosen[i] * 784 + byte, 0, 2);
    for (int i = start; i < end; i++)
      warp(images + chosen[i] * 784, table + size_t(i) * 10, scale, offset, out + size_t(i) * 784);
  });
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
