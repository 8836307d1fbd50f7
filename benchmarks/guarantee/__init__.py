"""Owns the benchmarks of what the guarantees of epochs mode cost."""
