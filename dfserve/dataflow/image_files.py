"""Owns the source that yields the images of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfserve.dataflow.decoding import import_cv2, read_image
from dfserve.dataflow.failures import attach_key
from dfserve.dataflow.indexed import Indexed
from dfserve.dataflow.indexing import place_of
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt


class ImageFromFile(Indexed):
    """The images of a list of files as datapoints of one component, ``[image]``.

    An image is uint8 of shape (height, width, 3), *RGB* as in tensorpack, or (height, width, 1), grey. Needs OpenCV:
    ``pip install 'dfserve[producer]'``.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        channel: int = 3,
        resize: int | tuple[int, int] | None = None,
        shuffle: bool = False,
        *,
        on_error: OnError = "raise",
    ) -> None:
        """Read ``files``.

        Args:
            files: the paths.
            channel: 3 for RGB, to which grey and transparent images are converted; 1 for grey.
            resize: (height, width) in pixels, or one number for both; the interpolation is bilinear.
            shuffle: a new order for every pass. (Unlike tensorpack's, it leaves the list ``files`` as it is.)
            on_error: what a pass does with a file that is no image; see ``MapData``. An index always raises.

        Raises:
            ConfigError: no files, or another ``channel`` or ``resize``.
        """
        if isinstance(files, (str, bytes, os.PathLike)) or not len(files):
            raise ConfigError(f"files is {files!r}; it is a list of at least one path")
        if channel not in (1, 3):
            raise ConfigError(f"channel is {channel!r}; it is 1 (grey) or 3 (RGB)")
        super().__init__(shuffle, on_error)
        self.files = list(files)
        self.channel = int(channel)
        self.resize = None if resize is None else _height_and_width(resize)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[npt.NDArray[np.uint8]]:
        """Return the image of file ``index``, whatever the order of the passes; IndexError outside.

        Raises:
            DatapointError: the file is missing, no image, or cut short; it names the file, also in the error's key.
        """
        place = place_of(index, len(self.files))
        path = os.fspath(self.files[place])
        try:
            return [self._read(path)]
        except Exception as error:
            attach_key(error, path, place)
            raise

    def _read(self, path: str) -> npt.NDArray[np.uint8]:
        image: Any = read_image(path, grey=self.channel == 1)
        cv2 = import_cv2()
        if self.channel == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if self.resize is not None:
            height, width = self.resize
            image = cv2.resize(image, (width, height))
        # Some releases of OpenCV keep an axis for the one channel, others drop it.
        return image.reshape(*image.shape[:2], self.channel)  # type: ignore[no-any-return]  # cv2's arrays are untyped


def _height_and_width(resize: Any) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in ((resize, resize) if np.ndim(resize) == 0 else resize))
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise ConfigError(f"resize is {resize!r}; it is (height, width) in pixels, or one number for both")
    return height, width
