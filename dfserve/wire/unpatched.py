"""Owns msgpack's own packer and unpacker, whatever has been patched into the ``msgpack`` package.

``msgpack_numpy.patch()``, which ``import tensorpack`` calls, replaces ``msgpack.unpackb`` for the whole process by one
that unpickles arrays of dtype object, before any hook of ours could look. The modules named here are not replaced.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("MSGPACK_PUREPYTHON"):
    from msgpack.fallback import Packer, unpackb
else:
    try:
        from msgpack._cmsgpack import Packer, unpackb
    except ImportError:  # msgpack was built without its C extension
        from msgpack.fallback import Packer, unpackb

__all__ = ["Packer", "unpackb"]
