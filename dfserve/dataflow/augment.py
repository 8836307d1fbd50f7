"""Owns the operators that augment images of a datapoint, and what belongs to them: masks, points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dfserve.dataflow.base import Datapoint
from dfserve.dataflow.mapping import MapData, MapDataComponent
from dfserve.dataflow.policy import OnError
from dfserve.errors import ConfigError, DatapointError

if TYPE_CHECKING:
    # They need cv2, which `import dfserve.dataflow` does not.
    from dfserve.dataflow.imgaug import AugmentorList, ImageAugmentor
    from dfserve.dataflow.imgaug.arrays import Image, Points


class AugmentImageComponent(MapDataComponent):
    """One image of each datapoint, augmented; the datapoint is dropped if that gives None."""

    def __init__(
        self,
        ds: Any,
        augmentors: AugmentorList | Sequence[ImageAugmentor],
        index: int | str = 0,
        copy: bool = True,
        catch_exceptions: bool = False,
        *,
        on_error: OnError | None = None,
    ) -> None:
        """Augment ``datapoint[index]``.

        Args:
            ds: a DataFlow.
            augmentors: a list of augmentors, or an AugmentorList.
            index: a position, or the key of a dict.
            copy: never change the source's image, nor hand it on itself. It costs a copy only where an augmentor that
                is not dfserve's own, which might write into its image, is in ``augmentors``, or where they return
                (a part of) the source's image as it was.
            catch_exceptions: skip images for which something raises, and log it: ``on_error="skip"``.
            on_error: what to do with a datapoint for which something raises: ``"raise"``, the default; ``"skip"``; or a
                ``SkipErrors`` with limits and a quarantine file.

        Raises:
            ConfigError: ``augmentors`` is no list of augmentors, or ``catch_exceptions`` contradicts ``on_error``.
            ImportError: OpenCV is missing.
        """
        super().__init__(ds, self._augment, index, on_error=_chosen(catch_exceptions, on_error))
        self._augmentation = _Augmentation(augmentors, copy)
        self.augs = self._augmentation.augs

    def reset_state(self) -> None:
        super().reset_state()
        self._augmentation.reset_state()

    def _augment(self, image: Any) -> Any:
        _need_array(image, self._index)
        return self._augmentation.apply([image], [])[0]


class AugmentImageComponents(MapData):
    """Several images of each datapoint, and points on them, augmented alike: an image, its mask, its key points."""

    def __init__(
        self,
        ds: Any,
        augmentors: AugmentorList | Sequence[ImageAugmentor],
        index: Sequence[int | str] = (0, 1),
        coords_index: Sequence[int | str] = (),
        copy: bool = True,
        catch_exceptions: bool = False,
        *,
        on_error: OnError | None = None,
    ) -> None:
        """Augment the first image of ``index``, and do the same to all others. That means all of it, brightness too.

        Args:
            ds: a DataFlow.
            augmentors: a list of augmentors, or an AugmentorList.
            index: positions or keys of images of the same height and width; the policies see the first.
            coords_index: positions or keys of points: arrays of floating point of shape (N, 2), each row (x, y).
            copy: as in AugmentImageComponent.
            catch_exceptions: as there.
            on_error: as there.

        Raises:
            ConfigError: ``index`` is empty; and as there.
            ImportError: as there.
        """
        super().__init__(ds, self._augment, on_error=_chosen(catch_exceptions, on_error))
        self._index = _as_tuple(index)
        self._coords_index = _as_tuple(coords_index)
        if not self._index:
            raise ConfigError(f"{type(self).__name__}(index={index!r}): name one image at least")
        self._augmentation = _Augmentation(augmentors, copy)
        self.augs = self._augmentation.augs

    def reset_state(self) -> None:
        super().reset_state()
        self._augmentation.reset_state()

    def _augment(self, datapoint: Any) -> Datapoint:
        images = [_need_array(datapoint[index], index) for index in self._index]
        points = [_need_points(datapoint[index], index) for index in self._coords_index]
        augmented = self._augmentation.apply(images, points)
        # MapData made the copy; only a tuple needs another kind of one.
        result: Any = list(datapoint) if isinstance(datapoint, tuple) else datapoint
        for index, component in zip(self._index + self._coords_index, augmented, strict=True):
            result[index] = component
        return result


class AugmentImageCoordinates(AugmentImageComponents):
    """One image of each datapoint, and the points on it, augmented."""

    def __init__(
        self,
        ds: Any,
        augmentors: AugmentorList | Sequence[ImageAugmentor],
        img_index: int | str = 0,
        coords_index: int | str = 1,
        copy: bool = True,
        catch_exceptions: bool = False,
        *,
        on_error: OnError | None = None,
    ) -> None:
        """Augment ``datapoint[img_index]`` and move the points ``datapoint[coords_index]`` with it.

        All arguments are as in AugmentImageComponents, for one image and one array of points.
        """
        super().__init__(ds, augmentors, (img_index,), (coords_index,), copy, catch_exceptions, on_error=on_error)


class _Augmentation:
    """Augmentors, and what they may not do to the source's arrays."""

    def __init__(self, augmentors: AugmentorList | Sequence[ImageAugmentor], copy: bool) -> None:
        from dfserve.dataflow.imgaug import AugmentorList

        self.augs = augmentors if isinstance(augmentors, AugmentorList) else AugmentorList(augmentors)
        self._copy = copy
        self._copy_before = True  # until reset_state() knows better

    def reset_state(self) -> None:
        from dfserve.dataflow.imgaug.writers import may_write

        self._copy_before = may_write(self.augs)
        self.augs.reset_state()

    def apply(self, images: list[Image], points: list[Points]) -> list[Any]:
        """Return all of them augmented, by the transform that is drawn for the first image."""
        sources = [*images, *points]
        if self._copy and self._copy_before:
            images, points = [image.copy() for image in images], [coords.copy() for coords in points]
        transform = self.augs.get_transform(images[0])
        augmented = [transform.apply_image(image) for image in images]
        augmented += [transform.apply_coords(coords) for coords in points]
        if not self._copy:
            return augmented
        return [_apart(result, source) for result, source in zip(augmented, sources, strict=True)]


def _apart(result: Any, source: npt.NDArray[Any]) -> Any:
    """Return ``result``, copied if it lies in the memory of ``source``: whoever changes it must not change that."""
    lies_there = isinstance(result, np.ndarray) and np.may_share_memory(result, source)
    return result.copy() if lies_there else result


def _need_array(image: Any, index: int | str) -> Image:
    if isinstance(image, np.ndarray):
        return image
    if image is None:
        raise DatapointError(
            f"component {index!r} is None, which cv2.imread and cv2.imdecode return for what they cannot read"
        )
    raise DatapointError(f"component {index!r} is a {type(image).__name__}, and no image: a numpy array")


def _need_points(coords: Any, index: int | str) -> Points:
    from dfserve.dataflow.imgaug.arrays import as_points

    try:
        return as_points(coords)
    except DatapointError as error:
        raise DatapointError(f"component {index!r}: {error}") from None


def _chosen(catch_exceptions: bool, on_error: OnError | None) -> OnError:
    if on_error is None:
        return "skip" if catch_exceptions else "raise"
    if catch_exceptions and on_error == "raise":
        raise ConfigError("catch_exceptions=True skips images that fail, on_error='raise' does not: give one of them")
    return on_error


def _as_tuple(index: Any) -> tuple[int | str, ...]:
    return tuple(index) if isinstance(index, (list, tuple)) else (index,)
