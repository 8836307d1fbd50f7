"""Owns the names of the data sets. Each module loads when one of its names is first asked for: most users need one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfserve.dataflow.dataset.cifar import Cifar10, Cifar100, CifarBase
    from dfserve.dataflow.dataset.ilsvrc import ILSVRC12, ILSVRC12Files
    from dfserve.dataflow.dataset.ilsvrc_meta import ILSVRCMeta
    from dfserve.dataflow.dataset.mnist import FashionMnist, Mnist
    from dfserve.dataflow.dataset.network_images import NetworkImages
    from dfserve.dataflow.dataset.tiny_imagenet import TinyImageNet
    from dfserve.dataflow.decoding import decode_image

__all__ = [
    "ILSVRC12",
    "Cifar10",
    "Cifar100",
    "CifarBase",
    "FashionMnist",
    "ILSVRC12Files",
    "ILSVRCMeta",
    "Mnist",
    "NetworkImages",
    "TinyImageNet",
    "decode_image",
]

_MODULES = {
    "ILSVRC12": ".ilsvrc",
    "Cifar10": ".cifar",
    "Cifar100": ".cifar",
    "CifarBase": ".cifar",
    "FashionMnist": ".mnist",
    "ILSVRC12Files": ".ilsvrc",
    "ILSVRCMeta": ".ilsvrc_meta",
    "Mnist": ".mnist",
    "NetworkImages": ".network_images",
    "TinyImageNet": ".tiny_imagenet",
    "decode_image": "..decoding",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
