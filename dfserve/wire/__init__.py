"""Owns the wire: messages, blocks and the values in them, as pure functions over frames of bytes."""
