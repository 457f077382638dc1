"""Tests of the kernels and graphs of a GPU: all need one, or an emulation."""

import pytest

from mnist_bn import devices


@pytest.fixture
def gpu():
    """The GPU as Chainer's device, current, with our kernels in."""
    from mnist_bn import gpu

    device = devices.resolve("@cupy:0")
    device.use()
    gpu.install()
    return device
