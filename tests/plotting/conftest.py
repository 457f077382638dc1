"""Result folders as training would leave them, with plausible learning curves."""

import math
from pathlib import Path

import numpy as np
import pytest

from mnist_bn.plotting.groups import NETWORKS, OPTIMIZERS
from tests.helpers import write_result_folder

# Error and time constant (epochs) of each optimizer, and what each network does to both.
_ERROR = dict(
    zip(OPTIMIZERS, (0.012, 0.009, 0.009, 0.016, 0.008, 0.03, 0.02, 0.009, 0.008), strict=True)
)
_SLOW = dict(zip(OPTIMIZERS, (1.6, 0.6, 0.6, 2.0, 0.45, 0.4, 1.5, 0.5, 0.4), strict=True))
_GAIN = dict(zip(NETWORKS, (1.0, 0.75, 0.7, 0.8), strict=True))


def curve(network: str, optimizer: str, seed: int, epochs: int) -> list[dict]:
    """A log's entries."""
    rng = np.random.default_rng([NETWORKS.index(network), OPTIMIZERS.index(optimizer), seed])
    entries = []
    for epoch in range(1, epochs + 1):
        fading = 0.09 * _SLOW[optimizer] ** 0.8 * (epoch + 0.3) ** -1.1 * math.exp(-epoch / 30)
        error = (_ERROR[optimizer] + 0.5 * fading) * _GAIN[network]
        error *= float(np.exp(rng.normal(0, 0.06 + (optimizer == "RMSprop") * 0.15)))
        train = error * 1.6 * (1.5 / (epoch + 0.5)) ** 0.7
        entries.append(
            {
                "main/loss": train * 3.3,
                "main/accuracy": 1 - train,
                "validation/main/loss": error * 3.1,
                "validation/main/accuracy": 1 - error,
                "epoch": epoch,
                "iteration": 600 * epoch,
                "elapsed_time": 11.5 * epoch,
            }
        )
    return entries


def write_run(
    root: Path, network="MnistCNN", optimizer="SGD", seed=0, epochs=3, **settings
) -> Path:
    """A result folder; `settings` go to args, `log` replaces the entries."""
    log = settings.pop("log", None) or curve(network, optimizer, seed, epochs)
    number = len(list(root.glob("*")))
    folder = root / f"{network}-{optimizer}-{number}-s{seed}"
    args = {
        "model": network,
        "optimizer": optimizer,
        "lr": None,
        "momentum": None,
        "seed": seed,
        "dataset": "mnist",
        "semantics": "today",
        "batchsize": 100,
        "epoch": epochs,
        "versions": {"numpy": "2.4"},
    }
    return write_result_folder(folder, args | settings, log)


@pytest.fixture(scope="session")
def make_run():
    return write_run


@pytest.fixture(scope="session")
def entries():
    return curve


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """Two networks under two optimizers, two seeds each."""
    for network in NETWORKS[:2]:
        for optimizer in ("SGD", "Adam"):
            for seed in (0, 1):
                write_run(tmp_path / "result", network, optimizer, seed)
    return tmp_path / "result"
