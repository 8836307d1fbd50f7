"""Owns the operators that run in several threads or processes."""
