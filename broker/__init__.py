"""Owns the broker role: taking blocks in, keeping them within a byte budget and handing them out to consumers."""
