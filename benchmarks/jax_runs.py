"""JAX with Flax: the same networks, a training step compiled as one function."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np

from mnist_bn.data import Dataset

# Before JAX loads: its compiler's threads, which read this once.
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("XLA_FLAGS", _ONE_THREAD)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flax import linen as nn  # noqa: E402

NETWORKS = ("MnistCNN", "MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before")


class MnistCNN(nn.Module):
    """The network of `models.mnist_cnn` that is called `network`, with maps as (N, H, W, C)."""

    network: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the logits, float32 (N, 10), of images, float32 (N, 784)."""
        bnorm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=2e-5
        )
        h = x.reshape(-1, 28, 28, 1)
        for channels in (16, 32, 64):
            h = nn.Conv(channels, (3, 3), padding="VALID")(h)
            if self.network == "MnistCNN_BN_after":
                h = bnorm()(nn.relu(h))
            else:
                h = nn.relu(h if self.network == "MnistCNN" else bnorm()(h))
            h = nn.max_pool(h, (2, 2), (2, 2), "SAME")  # Chainer's cover_all
        h = nn.Dense(512)(h.reshape(len(h), -1))
        is_linear = self.network == "MnistCNN_BN_linear_before"
        h = nn.relu(bnorm()(h) if is_linear else h)
        h = nn.Dense(10)(nn.Dropout(0.5, deterministic=not train)(h))
        return bnorm()(h) if is_linear else h


class JaxRun:
    """Training and evaluation of a network on JAX, for as many steps as asked; see steps.Run.

    Args:
        model: one of NETWORKS.
        dataset: the images.
        batchsize: images a step.
        clock: returns seconds.
        optimizer: "Adam" or "SGD".
    """

    def __init__(
        self,
        model: str,
        dataset: Dataset,
        batchsize: int,
        clock: Callable[[], float],
        optimizer: str = "Adam",
    ) -> None:
        self._batchsize, self._clock = batchsize, clock
        self._train_data, self._test_data = (
            tuple(map(jnp.asarray, split)) for split in (dataset.train, dataset.test)
        )
        network = MnistCNN(model)
        update = {"Adam": optax.adam(1e-3), "SGD": optax.sgd(1e-2)}[optimizer]  # as Chainer's
        variables = network.init(jax.random.key(0), self._train_data[0][:2], train=False)
        parameters, statistics = variables["params"], variables.get("batch_stats", {})
        self._state = parameters, statistics, update.init(parameters), jax.random.key(1)
        self._sums = jnp.zeros(2)  # of loss and accuracy

        def losses(parameters, statistics, images, labels, train, key):
            logits, changed = network.apply(
                {"params": parameters, "batch_stats": statistics},
                *(images, train),
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            report = jnp.stack([loss, (logits.argmax(1) == labels).mean()])
            return loss, (report, changed.get("batch_stats", {}))

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(state, sums, data, indices):
            parameters, statistics, moments, key = state
            key, own = jax.random.split(key)
            images, labels = (array[indices] for array in data)
            (_, (report, statistics)), gradients = jax.value_and_grad(losses, has_aux=True)(
                parameters, statistics, images, labels, True, own
            )
            changes, moments = update.update(gradients, moments, parameters)
            parameters = optax.apply_updates(parameters, changes)
            return (parameters, statistics, moments, key), sums + report

        @jax.jit
        def evaluate(state, sums, images, labels):
            parameters, statistics, _, key = state
            _, (report, _) = losses(parameters, statistics, images, labels, False, key)
            return sums + report

        self._step, self._evaluate = step, evaluate
        self._rng = np.random.default_rng(0)
        self._order, self._position = np.empty(0, np.int32), 0

    def train(self, steps: int) -> float:
        """Trains one step that is not timed and `steps` that are: returns seconds a step."""
        self._train_step()
        jax.block_until_ready(self._state)
        start = self._clock()
        for _ in range(steps):
            self._train_step()
        jax.block_until_ready(self._state)
        return (self._clock() - start) / steps

    def evaluate(self, steps: int) -> float:
        """Evaluates the network on `steps` batches of test images: returns seconds a batch."""

        def batch(i: int) -> list[jax.Array]:
            part = slice(i * self._batchsize, (i + 1) * self._batchsize)
            return [array[part] for array in self._test_data]

        self._evaluate(self._state, jnp.zeros(2), *batch(0)).block_until_ready()  # it compiles
        start, sums = self._clock(), jnp.zeros(2)
        for i in range(steps):
            sums = self._evaluate(self._state, sums, *batch(i))
        sums.tolist()
        return (self._clock() - start) / steps

    def losses(self) -> list[float]:
        """Returns the sums of loss and accuracy over all training steps."""
        return self._sums.tolist()

    def close(self) -> None:
        """Gives back what was compiled."""
        jax.clear_caches()

    def _train_step(self) -> None:
        if self._position + self._batchsize > len(self._order):
            self._order = self._rng.permutation(len(self._train_data[1])).astype(np.int32)
            self._position = 0
        indices = self._order[self._position : self._position + self._batchsize]
        self._position += self._batchsize
        self._state, self._sums = self._step(self._state, self._sums, self._train_data, indices)
