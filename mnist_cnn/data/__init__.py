"""Get, verify and load MNIST."""
