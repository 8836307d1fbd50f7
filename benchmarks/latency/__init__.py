"""Owns the group `latency`: from produced to received at a tenth of the load, and from starting to the first one."""
