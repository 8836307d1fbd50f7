"""Owns the tests that `msgpack_numpy.patch()`, which `import tensorpack` calls, changes nothing for us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, pickle, sys
import msgpack_numpy
msgpack_numpy.patch()
import numpy as np
from dfserve.wire.blocks import decode_block, encode_block
from dfserve.wire.unpatched import Packer

class Bomb:
    def __reduce__(self):
        return (os.system, ("touch " + sys.argv[1],))

array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(Bomb())}
assert decode_block([Packer().pack([1, 0, None, [[0, [array]]]])]) == [[array]], "a dict is a dict"
block = [[np.float32(3), {b"nd": True, "boxes": np.arange(3)}, 1 << 70, (1, 2)]]
(found,) = decode_block(encode_block(block).frames)
assert type(found[0]) is np.float32 and found[1]["boxes"].tolist() == [0, 1, 2] and found[2:] == [1 << 70, (1, 2)]
"""


def test_a_patched_msgpack_opens_no_pickle_and_blocks_travel_as_before(tmp_path: Path) -> None:
    bomb = tmp_path / "created"
    subprocess.run([sys.executable, "-c", PROGRAM, str(bomb)], check=True, timeout=60)
    assert not bomb.exists()
