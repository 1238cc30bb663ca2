"""Trained weights in use: save, load, predict, export."""
