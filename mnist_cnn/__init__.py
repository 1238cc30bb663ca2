"""The workload: a 17,506-parameter network, MNIST, and one training loop on Accelerate."""
