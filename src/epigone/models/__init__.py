"""Resolve a model reference, load it, generate, score."""
