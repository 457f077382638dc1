"""PyTorch: the same networks and the same steps in a plain loop, as its users write it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks import torch_networks
from mnist_bn.data import Dataset, Split
from mnist_bn.data.dataset import SCALE


class TorchRun:
    """Training and evaluation of a network on PyTorch, for as many steps as asked.

    Args:
        model: class name of the network.
        dataset: the images; on a GPU they live there, as bytes if they are scaled bytes.
        batchsize: images a step.
        clock: returns seconds, or moments whose difference is seconds.
        channels_last: keep images and maps as (N, H, W, C) in memory.
        compiled: torch.compile's mode for the network; None is eager.
        device: "cpu" or "cuda".
        threads: of the CPU.
        optimizer: "Adam" or "SGD".
    """

    def __init__(
        self,
        model: str,
        dataset: Dataset,
        batchsize: int,
        clock: Callable[[], float],
        channels_last: bool = False,
        compiled: str | None = None,
        device: str = "cpu",
        threads: int = 1,
        optimizer: str = "Adam",
    ) -> None:
        torch.set_num_threads(threads)
        self._network = torch_networks.create(model, channels_last).to(device)
        # fused: 0.4 ms a step of Adam on the CNNs; foreach takes 1.2 and the default 1.5.
        options = {"capturable": device == "cuda"} if optimizer == "Adam" else {}
        rate = {"Adam": 1e-3, "SGD": 1e-2}[optimizer]  # Chainer's defaults
        self._optimizer = getattr(torch.optim, optimizer)(
            self._network.parameters(), lr=rate, fused=True, **options
        )
        self._forward = torch.compile(self._network, mode=compiled) if compiled else self._network
        self._train_data = _placed(dataset.train, device)
        self._test_data = _placed(dataset.test, device)
        self._batchsize = batchsize
        self._clock = clock
        self._device = device
        self._sums = torch.zeros(2, device=device)  # of loss and accuracy
        self._shuffle()

    def train(self, steps: int) -> float:
        """Trains one step that is not timed and `steps` that are: returns seconds a step."""
        self._network.train()
        self._train_step()
        start = self._clock()
        for _ in range(steps):
            self._train_step()
        return (self._clock() - start) / steps

    def evaluate(self, steps: int) -> float:
        """Evaluates the network on its `steps` batches of test images: returns seconds a batch."""
        self._network.eval()
        start = self._clock()
        with torch.inference_mode():
            sums = torch.zeros(2, device=self._device)
            for first in range(0, steps * self._batchsize, self._batchsize):
                batch = [array[first : first + self._batchsize] for array in self._test_data]
                _, report = self._losses(*batch)
                sums += report
            sums.tolist()
        return (self._clock() - start) / steps

    def epoch(self) -> float:
        """Trains an epoch and evaluates on the test images: returns seconds until all is known."""
        self._sums.zero_().tolist()
        start = time.perf_counter()
        self._network.train()
        for _ in range(len(self._order) // self._batchsize):
            self._train_step()
        self.evaluate(len(self._test_data[1]) // self._batchsize)
        self._sums.tolist()
        return time.perf_counter() - start

    def close(self) -> None:
        """Forgets what was compiled: past eight versions of a function torch.compile gives up."""
        torch.compiler.reset()

    def _train_step(self) -> None:
        self._learn(self._next_indices())

    def _learn(self, indices: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        loss, report = self._losses(*(array[indices] for array in self._train_data))
        loss.backward()
        self._optimizer.step()
        self._sums += report

    def _losses(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the loss, and beside it the accuracy, (2,), without gradient."""
        if images.dtype == torch.uint8:
            images = images.float() * SCALE.item()
        logits, labels = self._forward(images), labels.long()
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return loss, torch.stack([loss.detach(), accuracy])

    def _next_indices(self) -> torch.Tensor:
        if self._position + self._batchsize > len(self._order):
            self._shuffle()
        indices = self._order[self._position : self._position + self._batchsize]
        self._position += self._batchsize
        return indices

    def _shuffle(self) -> None:
        self._order = torch.randperm(len(self._train_data[1]), device=self._device)
        self._position = 0


class TorchGraphRun(TorchRun):
    """The same with the whole training step captured once as a CUDA graph, and replayed.

    As in https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture. Evaluation is
    TorchRun's.
    """

    _graph: torch.cuda.CUDAGraph | None = None

    def _train_step(self) -> None:
        indices = self._next_indices()
        if self._graph is None:
            self._capture(indices)
        self._indices.copy_(indices)
        self._graph.replay()

    def _capture(self, indices: torch.Tensor) -> None:
        self._indices = indices.clone()
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(3):
                self._learn(self._indices)
        torch.cuda.current_stream().wait_stream(warm_up)
        self._optimizer.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._learn(self._indices)


def _placed(split: Split, device: str) -> list[torch.Tensor]:
    images = split.pixels if device == "cuda" else split.images
    return [torch.from_numpy(array).to(device) for array in (images, split.labels)]
