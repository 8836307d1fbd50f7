"""Owns the group `transport`: datapoints from one process to another, over tcp on this machine."""
