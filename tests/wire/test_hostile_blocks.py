"""Owns the tests of what a hostile peer can send: nothing but WireError comes out, and nothing is unpickled."""

from __future__ import annotations

import collections
import os
import pickle
import random

import msgpack
import numpy as np
import pytest

from dfserve.errors import WireError
from dfserve.wire import values as codes
from dfserve.wire.blocks import decode_block, encode_block, inspect_block
from dfserve.wire.limits import DEFAULT_LIMITS, Limits

ROUNDS = 30_000  # messages; about 2 s


def refusal(frames, limits=DEFAULT_LIMITS):
    """Return the reason for which both readers refuse a block, or None; fails if they differ or raise anything else."""
    reason = reason_of(decode_block, frames, limits)
    assert reason_of(inspect_block, frames, limits) == reason
    assert reason in (None, "frames", "limits", "body", "dtype", "shape")
    return reason


def reason_of(read, frames, limits):
    try:
        read(frames, limits)
    except WireError as error:
        return error.reason
    return None


def block(columns, *buffers, count=1, kind=0, keys=None):
    return [msgpack.packb([count, kind, keys, columns]), *buffers]


def value(code, content):
    return block([[0, [msgpack.ExtType(code, msgpack.packb(content))]]])


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_an_array_of_dtype_object_is_never_unpickled_whatever_form_it_takes(tmp_path):
    path = tmp_path / "exploded"
    data = np.array([Bomb(path)]).dumps()
    form = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": data}
    structured = [[b"a", b"|O"]]
    for code in range(-1, 20):
        for content in (
            form,
            {**form, b"type": "<i4"},
            {**form, b"kind": b"V", b"type": structured},
            {**form, b"kind": "O"},
            {key.decode(): item for key, item in form.items()},
            ["|O", [1], data],
            ["object", [1], data],
            [[8, [["a", None, 0, "|O", []]]], [1], data],
            form | {b"extra": 1},
            data,
        ):
            if code >= 0:
                assert refusal(value(code, content)) is not None or code in (codes.TUPLE, codes.SET, codes.FROZENSET,
                    codes.BIG_INT, codes.NUMPY_BYTES, codes.NUMPY_STR)  # fmt: skip
            refusal([msgpack.packb(content), data])
    for spec in ("|O", "O", "object", [8, [["a", None, 0, "|O", []]]], structured):
        assert refusal(block([[1, spec, [], 1, False]], data[:8])) == "dtype"
        assert refusal(block([[2, spec, [[1]], 1]], data[:8])) == "dtype"
    assert not path.exists()
    pickle.loads(data)
    assert path.exists()  # the bomb was live


def test_a_users_dict_that_looks_like_an_array_stays_a_dict(tmp_path, travelled, same):
    path = tmp_path / "exploded"
    data = np.array([Bomb(path)]).dumps()
    mine = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": data}
    assert same(travelled([mine, {"in": [mine]}]), [[mine, {"in": [mine]}]])
    assert not path.exists()


HOSTILE = {
    "no frames": ([], "limits"),
    "an empty body": ([b""], "body"),
    "a body that is no list": ([msgpack.packb({})], "body"),
    "trailing bytes": ([encode_block([[1]]).frames[0] + b"\x00"], "body"),
    "no datapoints": (block([[0, []]], count=0), "limits"),
    "a negative count": (block([[0, []]], count=-1), "limits"),
    "a count without rows": (block([], count=1 << 40), "limits"),
    "a count of bool": (block([[0, [1]]], count=True), "body"),
    "an unknown kind": (block([[0, [1]]], kind=3), "body"),
    "keys of a list": (block([[0, [1]]], keys=["a"]), "body"),
    "a dict without keys": (block([[0, [1]]], kind=2), "body"),
    "too few keys": (block([[0, [1]]], kind=2, keys=[]), "body"),
    "two equal keys": (block([[0, [1]], [0, [2]]], kind=2, keys=[1, True]), "body"),
    "an unhashable key": (block([[0, [1]]], kind=2, keys=[[]]), "body"),
    "an unknown column": (block([[3, [1]]]), "body"),
    "a column of bool": (block([[False, [1]]]), "body"),
    "an empty column": (block([[]]), "body"),
    "too many values": (block([[0, [1, 2]]]), "body"),
    "too few shapes": (block([[2, "|u1", [], 1]], b""), "body"),
    "a frame that is not there": (block([[1, "|u1", [1], 1, False]]), "frames"),
    "the body as a frame": (block([[1, "|u1", [1], 0, False]]), "frames"),
    "a negative frame": (block([[1, "|u1", [1], -1, False]], b"x"), "frames"),
    "a frame used twice": (block([[1, "|u1", [1], 1, False]] * 2, b"x"), "frames"),
    "a frame not used": (block([[0, [1]]], b"x"), "frames"),
    "a short frame": (block([[1, "<i4", [1], 1, False]], b"xyz"), "frames"),
    "a long frame": (block([[1, "<i4", [1], 1, False]], b"vwxyz"), "frames"),
    "a short ragged frame": (block([[2, "|u1", [[1], [1]], 1]], bytes(64), count=2), "frames"),
    "dimensions that overflow 64 bits to zero": (block([[1, "|u1", [1 << 32, 1 << 32], 1, False]], b""), "limits"),
    "a huge dimension beside a zero": (block([[1, "|u1", [1 << 62, 0], 1, False]], b""), "limits"),
    "a negative dimension": (block([[1, "|u1", [-1, -1], 1, False]], b"x"), "shape"),
    "scalars with a shape": (block([[1, "|u1", [1], 1, True]], b"x"), "dtype"),
    "texts as scalars": (block([[1, "<U1", [], 1, True]], b"\xff" * 4), "dtype"),
    "scalars neither true nor false": (block([[1, "|u1", [], 1, 1]], b"x"), "dtype"),
    "an unknown extension": (block([[0, [msgpack.ExtType(99, b"")]]]), "body"),
    "a timestamp": (block([[0, [msgpack.Timestamp(1)]]]), "body"),
    "a timestamp as a key": (block([[0, [{msgpack.Timestamp(1): 1}]]]), "body"),
    "a malformed timestamp": ([b"\x94\x01\x00\xc0\x91\x92\x00\x91\xd4\xff\x00"], "body"),
    "a complex of seven bytes": (block([[0, [msgpack.ExtType(codes.COMPLEX, b"1234567")]]]), "body"),
    "a tuple of a dict": (value(codes.TUPLE, {}), "body"),
    "a dict of a list": (value(codes.DICT, [1]), "body"),
    "a dict with more keys than items": (value(codes.DICT, [[1, 2], [1]]), "body"),
    "a dict with two equal keys": (value(codes.DICT, [[1, True], [1, 2]]), "body"),
    "a dict with a list for a key": (value(codes.DICT, [[[]], [1]]), "body"),
    "a map with an int for a key": (block([[0, [{1: 2}]]]), "body"),
    "a set of lists": (value(codes.SET, [[]]), "body"),
    "a list as a key": (block([[0, [{msgpack.ExtType(codes.TUPLE, b"\x91\x90"): 1}]]]), "body"),
    "an array as a key": (block([[0, [{msgpack.ExtType(codes.ARRAY, msgpack.packb(["|u1", [1], b"x"])): 1}]]]), "body"),
    "an array in a set": (block([[0, [msgpack.ExtType(codes.SET, msgpack.packb([msgpack.ExtType(codes.ARRAY,
        msgpack.packb(["|u1", [1], b"x"]))]))]]]), "body"),
    "an extension in an array": (value(codes.ARRAY, ["|u1", [1], msgpack.ExtType(codes.TUPLE, b"\x90")]), "body"),
    "an array of four entries": (value(codes.ARRAY, ["|u1", [1], b"x", 1]), "body"),
    "a nested array that is too short": (value(codes.ARRAY, ["<i4", [2], b"xxxx"]), "frames"),
    "a scalar that is too long": (value(codes.SCALAR, ["<i4", b"xxxxx"]), "frames"),
    "a scalar text": (value(codes.SCALAR, ["<U1", b"\xff" * 4]), "dtype"),
    "a structure for msgpack-numpy": (value(codes.NUMPY, {b"nd": True, b"type": [["a", "<i4"]], b"kind": b"V",
        b"shape": [1], b"data": b"xxxx"}), "dtype"),
    "a text scalar for msgpack-numpy": (value(codes.NUMPY, {b"nd": False, b"type": "<U1", b"data": b"\xff" * 4}),
        "dtype"),
    "a complex for msgpack-numpy": (value(codes.NUMPY, {b"complex": True, b"data": "1j"}), "body"),
    "an array for msgpack-numpy with a text for data": (value(codes.NUMPY, {b"nd": True, b"type": "|u1", b"kind": b"",
        b"shape": [1], b"data": "x"}), "body"),
    "an array for msgpack-numpy without a shape": (value(codes.NUMPY, {b"nd": True, b"type": "|u1", b"kind": b"",
        b"data": b"x"}), "dtype"),
    "a claimed list of four billion": ([b"\x94\x01\x00\xc0\x91\x92\x00\xdd\xff\xff\xff\xff"], "body"),
    "a thousand claimed lists": ([b"\xdd\x00\x01\x00\x00" * 1000], "body"),
    "lists without end": ([b"\x91" * 100_000], "body"),
    "broken UTF-8": ([b"\x94\x01\x00\xc0\x91\x92\x00\x91\xa1\xff"], "body"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_block_is_refused_by_both_readers_for_the_same_reason(name):
    frames, reason = HOSTILE[name]
    assert refusal(frames) == reason


def test_keys_that_could_be_made_to_collide_are_few():
    same_hash = [
        msgpack.ExtType(codes.BIG_INT, (((1 << 61) - 1) * n << 9).to_bytes(12, "little")) for n in range(1, 258)
    ]
    for code, content in ((codes.SET, same_hash), (codes.FROZENSET, same_hash), (codes.DICT, [same_hash, same_hash])):
        assert refusal(value(code, content)) == "limits"
    assert refusal(value(codes.SET, same_hash[1:])) is None
    columns = [[0, [1]]] * 257
    assert refusal(block(columns, kind=2, keys=same_hash)) == "limits"
    assert refusal(block(columns, kind=2, keys=list(range(257)))) is None


def test_nesting_is_refused_beyond_the_limit_through_every_kind_of_container():
    def nested(depth, wrap):
        inner = 7
        for _ in range(depth):
            inner = wrap(inner)
        return block([[0, [inner]]])

    wraps = (
        lambda inner: [inner],
        lambda inner: {"k": inner},
        lambda inner: msgpack.ExtType(codes.TUPLE, msgpack.packb([inner])),
        lambda inner: msgpack.ExtType(codes.FROZENSET, msgpack.packb([inner])),
        lambda inner: [msgpack.ExtType(codes.DICT, msgpack.packb([[1], [[inner]]]))],
    )
    for wrap, depth in zip(wraps, (32, 32, 32, 32, 10), strict=True):
        assert refusal(nested(depth, wrap)) is None
        assert refusal(nested(depth + 1, wrap)) == "limits"
        assert refusal(nested(200, wrap)) == "limits"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_frame=799), "limits"),
        (Limits(max_frames=1), "limits"),
        (Limits(max_body=10), "limits"),
        (Limits(max_count=1), "limits"),
        (Limits(max_depth=1), "limits"),
        (Limits(max_frame=800, max_frames=2, max_body=200, max_count=2, max_depth=2), None),
    ],
)
def test_each_limit_is_enforced_by_the_receiver(limits, reason):
    frames = encode_block([[np.zeros(50), [(1,)]], [np.zeros(50), [(2,)]]]).frames
    assert refusal(frames, limits) == reason


@pytest.mark.parametrize("frame", [None, 3, "text", object(), [b"x"]])
def test_frames_without_the_buffer_protocol_are_refused(frame):
    assert refusal([frame]) == "body"
    assert refusal([*block([[1, "|u1", [1], 1, False]]), frame]) == "body"


def seeds():
    """Return well-formed blocks of every kind to mutate."""
    record = np.zeros(2, [("a", "<i4"), ("in", [("t", "<M8[s]"), ("u", "<U2", (2,))])])
    nested = {
        3: "int key",
        "k": [(1, {2}), np.arange(3), record, np.zeros(600), 2**80, 1j, np.float32(2), record[0], np.str_("s")],
    }
    return [
        [[np.arange(6).reshape(2, 3), n] for n in range(3)],
        [(np.zeros(n, "<f4"), "text", b"bytes") for n in range(4)],
        [{"a": record, "b": np.float16(n), "c": None, 4: np.array(n)} for n in range(2)],
        [[nested, np.datetime64("2020-01-01"), True, 2.5]],
        [[np.zeros((2, 0), ">c8"), np.array(["ab"]), np.array([b"ab"]), record[0]]],
    ]


JUNK = [
    None, True, False, 0, 1, -1, 2, 3, 255, 1 << 31, 1 << 32, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 0.5, "",
    "|O", "object", "<i4", ">f8", "<U4", "|V8", "|S1", "<M8[ns]", "<f16", "i4,i4", b"", b"O", b"V", b"\xff" * 8,
    [], [0], [1, 2], [[]], {}, {1: 2}, {b"nd": True}, [1 << 62, 0], [8, [["a", None, 0, "<i8", []]]],
]  # fmt: skip


def mutated(rng, node):
    """Return a tree of msgpack objects with something in it replaced; extensions are opened too."""
    if rng.random() < 0.12:
        return rng.choice([*JUNK, msgpack.ExtType(rng.randrange(12), rng.randbytes(rng.randrange(6)))])
    if isinstance(node, msgpack.ExtType):
        try:
            inner = msgpack.unpackb(node.data, strict_map_key=False)
        except Exception:  # not every extension holds msgpack
            return msgpack.ExtType(rng.randrange(12), node.data)
        code = node.code if rng.random() < 0.9 else rng.randrange(12)
        return msgpack.ExtType(code, packed(mutated(rng, inner)))
    if isinstance(node, list) and node:
        node = list(node)
        index = rng.randrange(len(node))
        change = rng.randrange(8)
        if change == 0:
            del node[index]
        elif change == 1:
            node.insert(index, node[rng.randrange(len(node))])
        else:
            node[index] = mutated(rng, node[index])
        return node
    if isinstance(node, dict) and node:
        key = rng.choice(list(node))
        return {**node, key: mutated(rng, node[key])}
    return rng.choice(JUNK) if rng.random() < 0.7 else node


def packed(tree):
    return msgpack.packb(tree, unicode_errors="surrogatepass")


def corrupted(rng, frames):
    """Return frames with bits flipped, cut, swapped, dropped, doubled, or with the body's parts replaced."""
    frames = [bytearray(frame) for frame in frames]
    way = rng.randrange(8)
    at = rng.randrange(len(frames)) if rng.random() < 0.5 else 0
    if way == 0:
        for _ in range(rng.randrange(1, 4)):
            if frames[at]:
                frames[at][rng.randrange(len(frames[at]))] ^= 1 << rng.randrange(8)
    elif way == 1:
        del frames[at][rng.randrange(len(frames[at]) + 1) :]
    elif way == 2:
        rng.shuffle(frames)
    elif way == 3:
        frames.insert(rng.randrange(len(frames) + 1), frames[at])
    elif way == 4:
        frames[at] = bytearray(rng.randbytes(rng.randrange(80)))
    else:
        tree = mutated(rng, msgpack.unpackb(bytes(frames[0]), strict_map_key=False))
        frames[0] = packed(tree)
    return frames


def test_random_and_mutated_messages_raise_only_wire_errors_and_both_readers_agree():
    rng = random.Random(20240229)
    wells = [encode_block(seed).frames for seed in seeds()]
    assert [refusal(frames) for frames in wells] == [None] * len(wells)
    outcomes = collections.Counter()
    for round_ in range(ROUNDS):
        if round_ % 6 == 0:
            frames = [rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(4))]
        else:
            frames = corrupted(rng, rng.choice(wells))
        outcomes[refusal(frames)] += 1
    assert set(outcomes) == {None, "frames", "limits", "body", "dtype", "shape"}
    assert min(outcomes.values()) > 20, outcomes
