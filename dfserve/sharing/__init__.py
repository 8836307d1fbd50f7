"""Owns memory that processes share: where blocks lie in it, who has lent what, and how it outlives them."""
