"""Time of each function of the networks on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from benchmarks.torch_networks import MnistCNN

if TYPE_CHECKING:
    from benchmarks.kernels import Operation


def passes(operation: Operation, clock: Callable[[], float]) -> Callable:
    """Returns a function that runs `operation` once: seconds forward and backward."""
    from benchmarks.kernels import make_arrays

    torch.set_num_threads(1)
    loss = operation.name.endswith("loss")
    inputs = [torch.from_numpy(a) for a in make_arrays(operation.shapes, 10 if loss else None)]
    if loss:
        inputs[1] = inputs[1].long()
    wanted = [x.requires_grad_() for x in inputs[operation.from_images :] if x.is_floating_point()]
    function = _batch_norm if operation.torch == "bn" else getattr(F, operation.torch)
    gradient = None

    def run() -> tuple[float, float]:
        nonlocal gradient
        start = clock()
        y = function(*inputs, **operation.torch_options)
        middle = clock()
        if gradient is None:
            gradient = torch.ones_like(y)
        restart = clock()
        torch.autograd.grad(y, wanted, gradient)
        return middle - start, clock() - restart

    return run


def _batch_norm(x, gamma, beta, **options):
    return F.batch_norm(x, None, None, gamma, beta, **options)


def update(network: str, clock: Callable[[], float]) -> Callable:
    """Returns a function that runs Adam's update of `network` once: seconds, and 0."""
    parameters = list(MnistCNN(network).parameters())
    for parameter in parameters:
        parameter.grad = 1e-3 * torch.ones_like(parameter)
    optimizer = torch.optim.Adam(parameters, fused=True)

    def run() -> tuple[float, float]:
        start = clock()
        optimizer.step()
        return clock() - start, 0.0

    return run
