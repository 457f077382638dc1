"""BN on several processes: statistics of each one's share of a batch, or of the whole batch.

    pip install mpi4py mpich
    mpiexec -n 2 python examples/chainermn_bn.py

Each process takes its share of every batch, and ChainerMN averages the gradients. A BN of Chainer
then normalizes each share by its own mean and variance, which is another network than on one
process. `MultiNodeBatchNormalization` sums over the processes, and has the gradients of one process
with the whole batch. All is in float64, so that this can be seen to the last digits.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import chainer
import chainer.functions as F
import chainermn
import numpy as np
from chainermn.global_except_hook import add_hook

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models
from mnist_bn.data import digits

NETWORK = "ReluMLP_BN"  # no dropout: it would draw other masks on each process
BATCH, STEPS, RATE = 100, 40, 0.1


def create() -> chainer.Chain:
    """Returns the network as each process begins with it."""
    np.random.seed(0)
    return models.create(NETWORK)


def step(network: chainer.Chain, optimizer, comm, images, labels) -> np.ndarray:
    """Takes one step, and returns the gradient that it took, of all parameters in a row.

    Args:
        comm: averages the gradients over the processes; None takes this one's.
    """
    loss = F.softmax_cross_entropy(network(images), labels)
    network.cleargrads()
    loss.backward()
    if comm is not None:
        comm.multi_node_mean_grad(network)
    optimizer.update()
    return np.concatenate([p.grad.ravel() for _, p in sorted(network.namedparams())])


def accuracy(network: chainer.Chain, images, labels) -> float:
    """Returns which part of the images the network gets right, in test mode."""
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return float(F.accuracy(network(images), labels).array)


def main() -> None:
    """Trains three networks side by side, and prints how far two of them are from the first."""
    add_hook()  # an exception on one process ends all
    warnings.filterwarnings("ignore", "chainermn.links.MultiNode", FutureWarning)
    comm = chainermn.create_communicator("naive")
    if BATCH % comm.size:
        raise SystemExit(f"{comm.size} processes: expected a number that divides {BATCH}")
    chainer.global_config.dtype = np.float64
    dataset = digits.load()
    train, test = (split.images.astype(np.float64) for split in (dataset.train, dataset.test))

    networks = {
        "one process": create(),
        "own statistics": create(),
        "of all processes": chainermn.links.create_mnbn_model(create(), comm),
    }
    optimizers = {name: chainer.optimizers.SGD(RATE).setup(n) for name, n in networks.items()}

    share = BATCH // comm.size
    if comm.rank == 0:
        print(f"{comm.size} processes, {share} images each; largest difference of the gradient")
        print("from that of one process with all, relative to its largest number:")
    order = np.random.RandomState(0)
    for number in range(1, STEPS + 1):
        batch = order.permutation(len(train))[:BATCH]
        own = batch[comm.rank * share : (comm.rank + 1) * share]
        gradients = {}
        for name, network in networks.items():
            is_alone = name == "one process"
            indices = batch if is_alone else own
            examples = train[indices], dataset.train.labels[indices]
            gradients[name] = step(network, optimizers[name], None if is_alone else comm, *examples)
        if comm.rank == 0 and number in (1, 10, STEPS):
            reference = gradients.pop("one process")
            errors = {
                name: np.abs(gradient - reference).max() / np.abs(reference).max()
                for name, gradient in gradients.items()
            }
            said = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
            print(f"  step {number}: {said}")
    if comm.rank == 0:
        found = {n: accuracy(network, test, dataset.test.labels) for n, network in networks.items()}
        said = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"test accuracy: {said}")


if __name__ == "__main__":
    main()
