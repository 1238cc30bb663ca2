"""Code that computes a training step instead of torch's operators."""
