"""What computes a training step besides torch's operators."""
