"""Owns the import of the tests' pipelines under a name that worker processes of every start method find too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
