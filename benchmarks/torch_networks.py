"""The networks of models/ in PyTorch, image for image."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

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


class MLP(nn.Module):
    """The fully connected networks of `models.small_mlp` and `models.small_mlp_cifar`.

    Args:
        sizes: units of the input, of each hidden layer and of the output.
        nonlinearity: after each hidden layer.
        bn: settings of the BN before it, None for none.
        threshold: a pixel above it is 1 and any other 0; None takes the pixels as they are.
        scale: what pixels are multiplied with.
    """

    def __init__(
        self, sizes, nonlinearity, bn: dict | None = None, threshold=None, scale=None
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(sizes)))
        self.bnorms = nn.ModuleList(
            nn.Identity() if bn is None else nn.BatchNorm1d(n, **bn) for n in sizes[1:-1]
        )
        self.nonlinearity, self.threshold, self.scale = nonlinearity, threshold, scale
        self.register_buffer("mean_image", torch.zeros(sizes[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits, float32 (N, 10), of images, float32 (N, ...)."""
        h = x.flatten(1)
        if self.threshold is not None:
            h = (h > self.threshold).float()
        if self.scale is not None:
            h = self.scale * h - self.mean_image
        *hidden, last = self.layers
        for layer, bnorm in zip(hidden, self.bnorms, strict=True):
            h = self.nonlinearity(bnorm(layer(h)))
        return last(h)


class ResNetCIFAR(nn.Module):
    """The residual network of `models.resnet_cifar` with BN.

    Args:
        depth: layers with weights, 6n + 2.
        channels_last: keep images and maps as (N, H, W, C) in memory.
    """

    def __init__(self, depth: int, channels_last: bool = False) -> None:
        super().__init__()
        widths = [3, 16, *(n for n in (16, 32, 64) for _ in range((depth - 2) // 3))]
        pairs = list(itertools.pairwise(widths))
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2 if i and b > a else 1, 1, bias=False)
            for i, (a, b) in enumerate(pairs)
        )
        self.bnorms = nn.ModuleList(nn.BatchNorm2d(n, **BN) for n in widths[1:])
        self.last = nn.Linear(64, 10)
        self.to(memory_format=self.format)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits, float32 (N, 10), of images, float32 (N, 3, 32, 32)."""
        h = F.relu(self.layer(0, x.contiguous(memory_format=self.format)))
        for i in range(1, len(self.convs), 2):
            y = self.layer(i + 1, F.relu(self.layer(i, h)))
            if y.shape != h.shape:  # option A
                h = F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 0, y.shape[1] - h.shape[1]))
            h = F.relu(y + h)
        return self.last(h.mean((2, 3)))

    def layer(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """Returns layer i of x: the convolution and its BN."""
        return self.bnorms[i](self.convs[i](x))


CS231N = (3072, 100, 100, 100, 100, 100, 10)
_MLPS = {
    "ExerciseMLP": lambda bn: MLP(
        (784, 40, 20, 10), torch.sigmoid, bn and {**BN, "eps": 1e-6, "affine": False}
    ),
    "ReluMLP": lambda bn: MLP((784, 256, 10), F.relu, bn),
    "SigmoidMLP": lambda bn: MLP((784, 100, 100, 100, 10), torch.sigmoid, bn, threshold=0.5),
    "CS231nMLP": lambda bn: MLP(CS231N, F.relu, bn and {**BN, "eps": 1e-5}, scale=255.0),
}


def create(name: str, channels_last: bool = False) -> nn.Module:
    """Returns the network that `models` calls so, such as "ResNetCIFAR(depth=20)".

    Args:
        channels_last: keep images and maps as (N, H, W, C) in memory.
    """
    if name.startswith("ResNetCIFAR"):
        return ResNetCIFAR(int(name.partition("depth=")[2].rstrip(")")), channels_last)
    if name.startswith("MnistCNN"):
        return MnistCNN(name, channels_last)
    return _MLPS[name.removesuffix("_BN")](BN if name.endswith("_BN") else None)
