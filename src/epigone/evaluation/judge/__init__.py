"""A model as judge: which of two answers is better, how good, how sure of itself, how right."""
