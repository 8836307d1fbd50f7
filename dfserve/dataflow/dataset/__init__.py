"""Owns the names of the data sets."""

from __future__ import annotations

from dfserve.dataflow.dataset.ilsvrc import ILSVRC12, ILSVRC12Files

__all__ = ["ILSVRC12", "ILSVRC12Files"]
