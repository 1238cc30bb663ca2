"""What computes a training step besides PyTorch's operators."""
