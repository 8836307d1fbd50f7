"""Owns the consumer role: the iterator that hands datapoints to a training step."""
