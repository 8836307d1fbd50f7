"""Owns the group `lmdb`: saving datapoints to an LMDB file and loading them, beside LMDB itself."""
