"""Owns an example of training in PyTorch that may be killed at any moment and goes on from its checkpoint.

::

    pip install torch scikit-learn
    cd examples
    dfserve produce digits_pipeline:make --to tcp://127.0.0.1:8877 --workers 2 &
    python digits.py tcp://127.0.0.1:8877

Kill either with ``kill -9``, wherever it is, and run the command again: the last line, a hash of all weights, is that
of a run that nobody killed, whatever the number of workers. Remove ``digits.pt`` to begin anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfserve import RemoteDataZMQ

BATCH = 32  # datapoints in a training step
SEED = 7  # of the weights and of what is dropped out; the loader has the same, for the order and the images
TIMEOUT = 60.0  # seconds without data until the trainer gives up, with an error that says who is missing


class Training:
    """The model and all else that a step changes: what a checkpoint must hold, beside the loader's position."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * 4 * 4, 10),
        )  # fmt: skip
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.003)
        self.steps = 0

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Learn from a batch, and return its loss."""
        loss = nn.functional.cross_entropy(self.model(images[:, None]), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return all of it. The random numbers are dropout's."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where ``state`` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        torch.set_rng_state(state["random"])

    def fingerprint(self) -> str:
        """Return a hash of every bit of the weights."""
        weights = (weight.numpy().tobytes() for weight in self.model.state_dict().values())
        return hashlib.sha256(b"".join(weights)).hexdigest()


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a file that is there completely or not at all, so that the one before it is good until then."""
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def train(address: str, path: Path, epochs: int, every: int, *, bind: bool) -> str:
    """Train from where the checkpoint is, or from the beginning, to the end of the last epoch.

    The loader's position goes into the file that the weights are in. So the two always belong together: each digit
    of an epoch has changed the weights exactly once, although steps after the checkpoint are made again.

    Args:
        address: of the broker, e.g. ``tcp://127.0.0.1:8877``.
        path: the checkpoint.
        epochs: how many in all.
        every: steps between two checkpoints.
        bind: host the broker at the address; else connect to one.

    Returns:
        A hash of the weights.

    Raises:
        Starved: nothing arrived for ``TIMEOUT`` seconds.
    """
    training = Training()
    # Without a checkpoint we begin at the beginning, whatever a broker that outlived us has handed out.
    loader = RemoteDataZMQ(
        address, bind=bind, timeout=TIMEOUT, mode="epochs", order="strict", seed=SEED, batch_size=BATCH, resume="fresh"
    )
    epoch = 0
    if path.exists():
        checkpoint = torch.load(path, weights_only=True)
        training.load_state_dict(checkpoint["training"])
        loader.load_state_dict(checkpoint["loader"])
        epoch = checkpoint["loader"]["epoch"]
        print(f"goes on after {training.steps} steps, in epoch {epoch}", flush=True)

    def keep() -> None:
        save({"training": training.state_dict(), "loader": loader.state_dict()}, path)

    with loader:
        for number in range(epoch, epochs):
            for images, labels in loader:
                loss = training.step(torch.from_numpy(images), torch.from_numpy(labels))
                if training.steps % every == 0:
                    print(f"epoch {number}, step {training.steps}: loss {loss:.3f}", flush=True)
                    keep()
        keep()
    return training.fingerprint()


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, and train."""
    parser = argparse.ArgumentParser(description="Train on handwritten digits; killed, go on from the checkpoint.")
    parser.add_argument("address", help="of the broker, e.g. tcp://127.0.0.1:8877")
    parser.add_argument("--checkpoint", type=Path, default=Path("digits.pt"), help="the file; default: digits.pt")
    parser.add_argument("--epochs", type=int, default=10, help="how many in all; default: 10")
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints; default: 20")
    parser.add_argument("--connect", action="store_true", help="use the broker that listens there, and host none")
    options = parser.parse_args(argv)
    # The same bits every time: sums in the same order, by deterministic kernels and as many threads as the last time.
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    bind = not options.connect
    weights = train(options.address, options.checkpoint, options.epochs, options.every, bind=bind)
    print(f"weights {weights}", flush=True)


if __name__ == "__main__":
    main()
