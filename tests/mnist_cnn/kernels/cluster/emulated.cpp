// The kernels of mnist_cnn/kernels/cluster/network.cu on a CPU, for ctypes.

#include "network.cu"

#define LAUNCHER(kernel, Arguments)                                                      \
    extern "C" void launch_##kernel(int grid, int cluster, unsigned order,               \
                                    const Arguments* arguments) {                        \
        launch(grid, cluster, sizeof(Shared), order, [=] { kernel(*arguments); });       \
    }                                                                                    \
    extern "C" int size_for_##kernel() { return sizeof(Arguments); }

LAUNCHER(train_step, StepArguments)
LAUNCHER(evaluate, EvaluationArguments)
LAUNCHER(update, UpdateArguments)
