"""Owns the group `network`: images fetched from a server with latency, by more and more threads and processes."""
