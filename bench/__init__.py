"""The harness: clocks, records and tables around the `mnist_cnn` workload."""
