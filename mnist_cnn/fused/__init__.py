"""The network's training step as Triton kernels, for GPUs; see `mnist_cnn.fused.kernels`."""
