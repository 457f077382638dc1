"""A finished run's network, for whoever wants to use it or to look into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import chainer
import numpy as np

from mnist_bn import networks
from mnist_bn.config import RunConfig
from mnist_bn.errors import UserError
from mnist_bn.storage import parameters, result_folder
from mnist_bn.trainer import semantics

_BATCH = 500  # images at a time: of all of MNIST's, one layer's output would take 2.6 GB


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as its run left it; calling it is in test mode, whatever Chainer's setting is.

    Attributes:
        network: the Chain, to look at its links or to train on. Called by itself it is in train
            mode, where BN takes the statistics of the images and changes its running ones.
        config: the settings of the run.
    """

    network: chainer.Chain
    config: RunConfig

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits, float32 `(N, 10)`.

        Args:
            images: `(N, 784)` for MNIST, from 0 (background) to 1; `(N, 3, 32, 32)` for CIFAR-10.
        """
        images = np.ascontiguousarray(images, np.float32)
        starts = range(0, max(1, len(images)), _BATCH)
        with chainer.using_config("train", False), chainer.no_backprop_mode():
            parts = [self.network(images[start : start + _BATCH]) for start in starts]
        return np.concatenate([chainer.as_variable(part).array for part in parts])

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the most likely class of each image, `(N,)`."""
        return self(images).argmax(axis=1)


def load_run(folder: str | Path) -> TrainedNetwork:
    """Returns the network of a finished run in test mode: `load_run("result/…")(images)`.

    Args:
        folder: the result folder, with `args` and `model.npz`.

    Raises:
        UserError: the folder is none, its run is not finished, the network's file is gone or has
            changed so that its parameters do not fit, or a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the result folder of a finished run")
    config = RunConfig.from_args(result_folder.read_args(folder))
    if not (folder / result_folder.MODEL).exists():
        raise UserError(
            f"{folder}: its run is not finished, as there is no {result_folder.MODEL}; "
            "train_mnist.py --autoload goes on with it"
        )
    network = networks.create(config.model)
    semantics.prepare(network, config.semantics)
    parameters.load(folder / result_folder.MODEL, network)
    return TrainedNetwork(network, config)
