"""PyTorch: the same networks and the same steps in a plain loop, as its users write it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mnist_bn.data import Dataset

BN = {"momentum": 0.1, "eps": 2e-5}  # Chainer's decay 0.9 and eps
CHANNELS = (1, 16, 32, 64)


class MnistCNN(nn.Module):
    """The network of `models.mnist_cnn` that is called `name`, image for image.

    Args:
        name: class name there.
        channels_last: keep images and maps as (N, H, W, C) in memory.
    """

    def __init__(self, name: str, channels_last: bool = False) -> None:
        super().__init__()
        bn = name != "MnistCNN"
        bn_linear = name == "MnistCNN_BN_linear_before"
        self.bn_after = name == "MnistCNN_BN_after"
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3) for before, after in itertools.pairwise(CHANNELS)
        )
        self.bnorms = nn.ModuleList(
            nn.BatchNorm2d(n, **BN) if bn else nn.Identity() for n in CHANNELS[1:]
        )
        self.l1 = nn.Linear(256, 512)
        self.l2 = nn.Linear(512, 10)
        self.bnorm4 = nn.BatchNorm1d(512, **BN) if bn_linear else nn.Identity()
        self.bnorm5 = nn.BatchNorm1d(10, **BN) if bn_linear else nn.Identity()
        self.to(memory_format=self.format)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits, float32 (N, 10), of images, float32 (N, 784)."""
        h = x.view(-1, 1, 28, 28).contiguous(memory_format=self.format)
        for conv, bnorm in zip(self.convs, self.bnorms, strict=True):
            h = bnorm(F.relu(conv(h))) if self.bn_after else F.relu(bnorm(conv(h)))
            h = F.max_pool2d(h, 2, ceil_mode=True)  # Chainer's cover_all
        h = F.relu(self.bnorm4(self.l1(h.flatten(1))))
        return self.bnorm5(self.l2(F.dropout(h, 0.5, self.training)))


class TorchRun:
    """Training and evaluation of a network on PyTorch, for as many steps as asked.

    Args:
        model: class name of the network.
        dataset: the images.
        batchsize: images a step.
        clock: returns seconds.
        channels_last: keep images and maps as (N, H, W, C) in memory.
        compiled: run the network through torch.compile.
    """

    def __init__(
        self,
        model: str,
        dataset: Dataset,
        batchsize: int,
        clock: Callable[[], float],
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        torch.set_num_threads(1)
        self._network = MnistCNN(model, channels_last)
        # fused: 0.4 ms a step on these networks, where foreach takes 1.2 and the default 1.5.
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=1e-3, fused=True)
        self._forward = torch.compile(self._network) if compiled else self._network
        self._train_data = [torch.from_numpy(array) for array in dataset.train]
        self._test_data = [torch.from_numpy(array) for array in dataset.test]
        self._batchsize = batchsize
        self._clock = clock
        self._order = torch.randperm(len(dataset.train.labels))
        self._position = 0

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
        losses, accuracies = [], []
        with torch.inference_mode():
            for first in range(0, steps * self._batchsize, self._batchsize):
                x, t = (array[first : first + self._batchsize] for array in self._test_data)
                logits = self._forward(x)
                losses.append(F.cross_entropy(logits, t.long()).item())
                accuracies.append(_accuracy(logits, t))
        return (self._clock() - start) / steps

    def close(self) -> None:
        """Forgets what was compiled: past eight versions of a function torch.compile gives up."""
        torch.compiler.reset()

    def _train_step(self) -> tuple[float, float]:
        x, t = self._next_batch()
        self._optimizer.zero_grad()
        logits = self._forward(x)
        loss = F.cross_entropy(logits, t.long())
        loss.backward()
        self._optimizer.step()
        return loss.item(), _accuracy(logits, t)

    def _next_batch(self) -> list[torch.Tensor]:
        if self._position + self._batchsize > len(self._order):
            self._order = torch.randperm(len(self._order))
            self._position = 0
        indices = self._order[self._position : self._position + self._batchsize]
        self._position += self._batchsize
        return [array[indices] for array in self._train_data]


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()
