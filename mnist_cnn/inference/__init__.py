"""Trained weights in use: saved, loaded, applied to an image, exported."""
