"""Owns the group `soak`: what all processes have in memory over minutes at full speed."""
