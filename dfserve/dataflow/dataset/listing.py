"""Owns which images an ImageNet-shaped folder holds, and each one's label: from label files, or from the folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dfserve.dataflow.dataset.caffe import caffe_file
from dfserve.errors import ConfigError, DownloadError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")  # compared in lower case
# As many as tensorpack looks for: enough to notice a wrong folder, without a million look-ups on a network disk.
CHECKED_FILES = 10
_CAFFE_FILES = "caffe_ilsvrc12.tar.gz (dl.caffe.berkeleyvision.org)"


def list_images(root: Path, name: str, meta_dir: Path | None, structure: str | None) -> list[tuple[str, int]]:
    """List the images of ``root/name`` with their labels, always in the same order.

    The label files ``<name>.txt`` (lines of ``file label``) and ``synsets.txt`` (a synset per line, its number is the
    label) are looked for in ``meta_dir``, then in ``root``. Without ``<name>.txt`` the folder is listed, sorted, and a
    label is the place of the image's synset in ``synsets.txt``, else among the sorted folders of ``root/train`` (so
    that val agrees with train), else among those of ``root/name``.

    Where all images lie in one folder there must be a label file: if neither folder has one, and no ``meta_dir`` is
    given, it is Caffe's, which is downloaded if need be.

    Args:
        root: the folder that holds ``train``, ``val`` or ``test``.
        name: which of them.
        meta_dir: a further folder with label files.
        structure: "train" (a folder for each synset), "original" (all images in one folder), None to look.

    Returns:
        (path below ``root/name``, label) pairs; at least one.

    Raises:
        ConfigError: a folder or label file is missing, malformed or without images.
        DownloadError: Caffe's label file is needed and could not be downloaded.
    """
    folder = root / name
    structure = structure or guess_structure(folder)
    metas = [meta for meta in (meta_dir, root) if meta is not None]
    label_file, synset_file = _find(f"{name}.txt", metas), _find("synsets.txt", metas)
    if label_file is None and structure == "original":
        label_file = _caffes_labels(folder, name, metas, may_download=meta_dir is None)
    if label_file:
        prefixes = _prefixes(synset_file, label_file) if name != "train" and structure == "train" else None
        images = list(read_labels(label_file, prefixes))
        _check_files(folder, images, label_file)
    else:
        images = list(_scan(folder, _synset_labels(folder, root / "train", synset_file)))
    if not images:
        raise ConfigError(f"no images in {label_file or folder} (looked for {', '.join(IMAGE_SUFFIXES)}, any case)")
    return images


def guess_structure(folder: Path) -> str:
    """Return "train" where there are folders in ``folder``, one for each synset; else "original"."""
    return "train" if _folders(folder) else "original"


def _caffes_labels(folder: Path, name: str, metas: list[Path], may_download: bool) -> Path:
    if not any(is_image(path.name) for path in folder.iterdir()):
        raise ConfigError(f"no images in {folder} (looked for {', '.join(IMAGE_SUFFIXES)}, any case), nor folders")
    need = f"{folder} has all images in one folder (structure 'original'), so their labels must come from {name}.txt"
    looked = " and ".join(str(meta) for meta in metas)
    remedy = "pass its folder as meta_dir, or sort the images into a folder for each synset"
    if not may_download:
        raise ConfigError(f"{need}, which is neither in {looked}: get it from {_CAFFE_FILES} and {remedy}")
    try:
        return caffe_file(f"{name}.txt")
    except DownloadError as error:
        raise DownloadError(f"{need}, which is not in {looked}. {error}; or {remedy}") from error


def _find(file_name: str, folders: list[Path]) -> Path | None:
    return next((folder / file_name for folder in folders if (folder / file_name).is_file()), None)


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _synset_labels(folder: Path, train: Path, synset_file: Path | None) -> dict[str, int]:
    """Return the label of each synset folder of ``folder``."""
    present = _folders(folder)
    if synset_file:
        known, source = read_synsets(synset_file), synset_file
    else:
        known, source = (_folders(train), train) if train.is_dir() else (present, folder)
    labels = {synset: label for label, synset in enumerate(known)}
    strangers = [synset for synset in present if synset not in labels]
    if strangers:
        raise ConfigError(
            f"{len(strangers)} folders of {folder} have no label in {source}: {', '.join(strangers[:5])}"
            f" (it knows {len(labels)} synsets); remove the folders or correct it"
        )
    return {synset: labels[synset] for synset in present}


def _scan(folder: Path, labels: dict[str, int]) -> Iterator[tuple[str, int]]:
    for synset, label in labels.items():
        # The suffix alone decides: asking what each entry is would cost a round trip per file on some network disks.
        with os.scandir(folder / synset) as entries:
            names = sorted(entry.name for entry in entries if is_image(entry.name))
        for name in names:
            yield f"{synset}/{name}", label


def is_image(name: str) -> bool:
    """Say whether a file of this name counts as an image."""
    # A leading dot: macOS leaves "._x.JPEG" beside x.JPEG, which is no image.
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def read_synsets(synset_file: Path) -> list[str]:
    """Return the synset of each label."""
    return synset_file.read_text(encoding="utf-8", errors="surrogateescape").split()


def _prefixes(synset_file: Path | None, label_file: Path) -> list[str]:
    if synset_file is None:
        raise ConfigError(
            f"{label_file} names files without their synset folder, so synsets.txt must lie beside it"
            f" (it comes with {_CAFFE_FILES})"
        )
    return read_synsets(synset_file)


def read_labels(label_file: Path, prefixes: list[str] | None) -> Iterator[tuple[str, int]]:
    """Yield (file, label) for the lines of a label file; ``prefixes[label]`` is the folder to put before each name.

    Raises:
        ConfigError: a malformed line.
    """
    # As Python reads file names: bytes that are not UTF-8 come back unchanged when the file is opened.
    with label_file.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                name, text = line.rsplit(maxsplit=1)
                label = int(text)
                if label < 0:
                    raise ValueError
                yield (f"{prefixes[label]}/{name}" if prefixes else name.strip()), label
            except (ValueError, IndexError):
                raise ConfigError(
                    f"{label_file}, line {number}: {line.strip()!r} is not 'file label' with a label"
                    " that synsets.txt has"
                ) from None


def _check_files(folder: Path, images: list[tuple[str, int]], label_file: Path) -> None:
    for name, _ in images[:CHECKED_FILES]:
        if not (folder / name).is_file():
            raise ConfigError(
                f"{label_file} names {name}, but there is no {folder / name}: the folder is incomplete or its structure"
                " is not what dir_structure says; without the label file the folder itself would be listed"
            )
