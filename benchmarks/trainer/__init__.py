"""Owns the benchmarks of what feeding costs the trainer's process, and how long its step waits for the next batch."""
