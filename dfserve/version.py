"""Owns the version number, the only place that it is written."""

__version__ = "0.1.0"
