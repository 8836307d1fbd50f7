"""Owns what these tests share: worlds are pickled, so the modules that simulate them are imported by their names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
