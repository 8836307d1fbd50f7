"""Owns the benchmarks: dfserve beside what it replaces, in one run on one machine. `python -m benchmarks`."""
