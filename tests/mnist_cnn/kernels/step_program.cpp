// One training step of compiled code as a program, for processors that this machine only emulates.
//
// Usage: step_program INSTRUCTION_SET GROUP IMAGES < tensors > results
// tensors: float32, the parameters and running statistics in the order of step.hpp's Tensors, the
// images, then the labels as int64. results: float32, losses, gradients, statistics, and logits by
// the new statistics. Exit status 3: this processor does not execute the instruction set.

#include <cstdio>
#include <vector>

#include "../../../mnist_cnn/kernels/native/step.hpp"

using namespace native;

extern "C" {
int runs(const char* set);
Step* step_new(int group, const char* set);
void step_train(Step*, const Tensors*, const float* images, const int64_t* labels, int count,
                float smoothing, float scale, float dropout, uint32_t seed, float momentum,
                float* losses);
void step_infer(Step*, const Tensors*, const float* images, int count, float* logits);
void set_threads(int threads);
}

int main(int, char** arguments) {
  const char* set = arguments[1];
  const int group = std::atoi(arguments[2]), count = std::atoi(arguments[3]);
  if (!runs(set)) return 3;
  std::vector<std::vector<float>> read, gradients;
  auto floats = [&](size_t size) {
    read.emplace_back(size);
    if (std::fread(read.back().data(), sizeof(float), size, stdin) != size) std::exit(2);
    return read.back().data();
  };
  auto gradient = [&](size_t size) { return gradients.emplace_back(size).data(); };
  Tensors t;
  for (int l = 0; l < LAYERS; l++) t.parameters.weights[l] = floats(CHANNELS[l] * FAN_IN[l]);
  for (int l = 0; l < LAYERS; l++) t.parameters.gamma[l] = floats(CHANNELS[l]);
  for (int l = 0; l < LAYERS; l++) t.parameters.beta[l] = floats(CHANNELS[l]);
  for (int l = 0; l < LAYERS; l++) t.mean[l] = floats(CHANNELS[l]);
  for (int l = 0; l < LAYERS; l++) t.variance[l] = floats(CHANNELS[l]);
  const float* images = floats(size_t(count) * 784);
  std::vector<int64_t> labels(count);
  if (std::fread(labels.data(), sizeof(int64_t), count, stdin) != size_t(count)) return 2;
  for (int l = 0; l < LAYERS; l++) t.d_weights[l] = gradient(CHANNELS[l] * FAN_IN[l]);
  for (int l = 0; l < LAYERS; l++) t.d_gamma[l] = gradient(CHANNELS[l]);
  for (int l = 0; l < LAYERS; l++) t.d_beta[l] = gradient(CHANNELS[l]);

  set_threads(2);
  std::vector<float> losses(count), logits(count * 10);
  step_train(step_new(group, set), &t, images, labels.data(), count, 0, 1, 0, 0, 0.1f, losses.data());
  step_infer(step_new(2, set), &t, images, count, logits.data());

  auto write = [](const std::vector<float>& values) {
    std::fwrite(values.data(), sizeof(float), values.size(), stdout);
  };
  write(losses);
  for (const auto& values : gradients) write(values);
  for (size_t k = 3 * LAYERS; k < 5 * LAYERS; k++) write(read[k]);
  write(logits);
}
