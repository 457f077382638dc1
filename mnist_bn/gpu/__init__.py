"""Training on a GPU: a step as one CUDA graph, and dropout's masks by counter.

A step of these networks is over a hundred small kernels, and Python takes far longer to launch them
than the GPU to run them. `capture` records them once and replays them; `updater` and `evaluation`
do so with the training step and with an evaluation batch. What changes from step to step lies on
the device, where the recorded kernels read it. The bits are those of the same step without a graph.
"""

from __future__ import annotations

from mnist_bn.kernels import seam


def install() -> None:
    """Has Chainer's functions compute by the kernels of this package, on a GPU.

    `kernels.uninstall` puts Chainer's own back.
    """
    from mnist_bn.gpu import losses, masks, normalization, products, updates  # they need CuPy

    for part in (losses, masks, normalization, products, updates):
        seam.install(part.replacements())
