"""Owns what producers, broker and consumers must agree on about epochs, as values and pure functions."""
