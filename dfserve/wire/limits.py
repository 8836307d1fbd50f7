"""Owns the limits on what a peer may send: sizes, counts and nesting, checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one message may hold. The sender refuses what passes them, and so does every receiver.

    Attributes:
        max_frame: bytes of one frame, so also of one array or of one block's stack of arrays. 256 MiB: several times
            the largest batches in use (64 float32 images of 224x224x3 are 37 MiB).
        max_frames: frames of one message. 4096: one for each component of a datapoint and for each large nested array.
        max_body: bytes of the msgpack body, which holds everything but the large arrays. 16 MiB: the objects built from
            it can take up to about 70 times its size in memory (an empty dict is one byte on the wire).
        max_count: datapoints in a block, and entries of one list, tuple, set or dict in a body. 65536: a list header
            of five bytes makes its reader allocate eight bytes for each entry it claims.
        max_depth: containers within containers in one component. 32.
    """

    max_frame: int = 256 << 20
    max_frames: int = 4096
    max_body: int = 16 << 20
    max_count: int = 65536
    max_depth: int = 32


DEFAULT_LIMITS = Limits()
