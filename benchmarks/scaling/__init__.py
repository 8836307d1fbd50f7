"""Owns the group `scaling`: what a broker costs with more producers, more consumers, and more groups."""
