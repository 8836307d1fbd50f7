"""Owns the group `images`: JPEG files read, cropped, resized and flipped by two processes, and received in a third."""
