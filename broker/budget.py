"""Owns the byte budget: every byte that workers were granted or that the broker holds is charged to it."""

from __future__ import annotations

# Charged with every block beside its bytes: the Python objects and libzmq frames around it. Without it a million empty
# blocks would cost nothing.
BLOCK_OVERHEAD = 2048  # bytes


def charge_of(nbytes: int) -> int:
    """Return what a block of ``nbytes`` is charged."""
    return nbytes + BLOCK_OVERHEAD


class Budget:
    """A number of bytes, and how many of them are taken.

    Args:
        total: bytes; never exceeded, whatever is asked for.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.peak = 0

    def fits(self, charge: int) -> bool:
        """Tell whether ``charge`` bytes are free."""
        return self.used + charge <= self.total

    def take(self, charge: int) -> None:
        """Charge bytes that fit."""
        assert self.fits(charge), f"{charge} bytes do not fit beside {self.used} of {self.total}"
        self.used += charge
        self.peak = max(self.peak, self.used)

    def give_back(self, charge: int) -> None:
        """Free bytes that were taken."""
        assert 0 <= charge <= self.used, f"{charge} bytes given back, {self.used} were taken"
        self.used -= charge
