"""Trained weights in use: saved, loaded, predicted with, exported."""
