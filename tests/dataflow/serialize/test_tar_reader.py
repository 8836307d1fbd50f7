"""Strict tar reading: where tarfile would take damage for the end, there is an error."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dfserve.dataflow.serialize.tar_reader import read_tar
from dfserve.errors import StoreError

FILES = {"a.jpg": b"\xff\xd8" * 400, "a.cls": b"3", "folder/" + "long" * 40 + ".txt": b"text", "empty.txt": b""}


def tar_of(files: dict[str, bytes], **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **keywords) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard.tar"


def read(path: Path, content: bytes) -> dict[str, bytes]:
    path.write_bytes(content)
    return {file.name: file.read() for file in read_tar(path)}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_come_out_in_their_order(path: Path, form: int, pack: Any) -> None:
    found = read(path, pack(tar_of(FILES, format=form)))
    assert list(found.items()) == list(FILES.items())


def test_folders_and_links_are_left_out(path: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.txt").write_bytes(b"1")
    (tmp_path / "folder" / "y.txt").symlink_to("x.txt")
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "folder", "folder")
    assert [file.name for file in read_tar(path)] == ["folder/x.txt"]


def test_content_that_is_not_asked_for_is_passed_over(path: Path) -> None:
    path.write_bytes(tar_of(FILES))
    assert [(file.name, file.size) for file in read_tar(path)] == [(name, len(c)) for name, c in FILES.items()]


@pytest.mark.parametrize("ask", [True, False])
def test_every_cut_tar_is_refused_with_the_last_whole_file(path: Path, ask: bool) -> None:
    whole = tar_of({"a.jpg": b"1" * 600, "b.jpg": b"2" * 512, "c.jpg": b"3"}, format=tarfile.GNU_FORMAT)
    ends = {"none": 0, "a.jpg": 512 + 600, "b.jpg": 1536 + 1024, "c.jpg": 2560 + 513}  # of each file's content
    for length in range(0, 2560 + 1024 + 1, 32):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError) as caught:  # noqa: PT012  # what came before the error counts
            for file in read_tar(path):
                assert not ask or len(set(file.read())) == 1
        assert str(path) in str(caught.value)
        named = str(caught.value).partition("last whole file before: ")[2].partition(")")[0] or "none"
        assert ends[named] <= length
        if ask:
            assert named == [name for name, end in ends.items() if end <= length][-1]


def test_no_flipped_bit_makes_a_file_vanish(path: Path) -> None:
    whole = tar_of({"a.jpg": b"123", "a.cls": b"4", "long" * 40 + ".txt": b"text"})
    end = len(whole.rstrip(b"\0"))
    errors = 0
    for place in range(0, end, 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        try:
            found = read(path, bytes(damaged))
        except StoreError:
            errors += 1
        else:
            assert len(found) == 3
    assert errors > 300  # headers have checksums; contents do not


def test_damage_under_gzip_is_found_wherever_it_matters(path: Path) -> None:
    packed = gzip.compress(tar_of(FILES), mtime=0)
    errors = 0
    for place in range(2, len(packed)):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        try:
            found = read(path, bytes(damaged))
        except StoreError:
            errors += 1
        else:
            assert found == FILES
    assert errors > len(packed) - 12  # only the time of day and the like may differ
    for length in range(2, len(packed), 5):
        with pytest.raises(StoreError, match=str(path)):
            read(path, packed[:length])


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 2000, b"PK\x03\x04" + bytes(600)])
def test_what_is_no_tar_is_refused_with_its_name(path: Path, content: bytes) -> None:
    with pytest.raises(StoreError, match=f"{path} is no tar file"):
        read(path, content)


def test_tars_joined_by_cat_are_refused_because_the_second_would_be_lost(path: Path) -> None:
    with pytest.raises(StoreError, match="tar --concatenate"):
        read(path, tar_of(FILES) * 2)


def test_a_long_name_that_is_a_lie_allocates_nothing(path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    with pytest.raises(StoreError, match="claims 4294967296 bytes"):
        read(path, tar_of(FILES)[:-10240] + member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))


def header_of(member: tarfile.TarInfo, **fields: bytes) -> bytes:
    """Return a header with some fields overwritten, and its checksum right."""
    places = {"size": 124, "sparse": 386, "real_size": 483}
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for name, content in fields.items():
        header[places[name] : places[name] + len(content)] = content
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_negative_size_ends_in_an_error_and_not_in_a_loop(path: Path) -> None:
    header = header_of(tarfile.TarInfo("x.txt"), size=b"\xff" * 10 + b"\xfc\x00")  # -1024, in base 256
    with pytest.raises(StoreError, match="bytes"):
        read(path, tar_of({"a.txt": b"1"})[:1024] + header + bytes(10240))


@pytest.mark.parametrize("size", ["-512", "-1024", "-2048", "-100000"])
def test_a_negative_size_in_an_extended_header_does_neither(path: Path, size: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("x.txt")
        member.pax_headers = {"size": size}
        tar.addfile(member)
    with pytest.raises(StoreError):
        read(path, tar_of({"a.txt": b"1"})[:1024] + buffer.getvalue())


def test_a_sparse_file_is_marked_since_its_size_may_be_any(path: Path) -> None:
    member = tarfile.TarInfo("x.bin")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    header = header_of(member, sparse=b"%011o\0%011o\0" % (0, 512), real_size=b"77777777777\0")
    path.write_bytes(header + bytes(512) + bytes(10240))
    ((size, sparse),) = [(file.size, file.sparse) for file in read_tar(path)]
    assert (size, sparse) == (8**11 - 1, True)


def test_a_missing_file_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_tar(path))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_thousands_of_headers_that_extend_each_other_are_an_error_with_the_name(path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type, content = kind, b"11 path=ab\n"
    header.size = len(content)
    one = header.tobuf(tarfile.GNU_FORMAT) + content.ljust(tarfile.BLOCKSIZE, b"\0")
    with pytest.raises(StoreError, match=str(path)):
        read(path, one * 5000)
