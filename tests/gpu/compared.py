"""What a function computes in float32 on the GPU beside Chainer's own in float64 on the CPU."""

import chainer
import numpy as np
from chainer.backends import cuda


def results(function, arrays, device, dtype):
    """The output, and the gradients of the inputs for a fixed random gradient of the output."""
    inputs = [chainer.Variable(device.send(a.astype(dtype))) for a in arrays]
    y = function(*inputs)
    y.grad = device.send(np.random.RandomState(1).randn(*y.shape).astype(dtype))
    y.backward()
    return [cuda.to_cpu(a) for a in (y.array, *(x.grad for x in inputs))]


def assert_as_float64(function, arrays, gpu, bound=1e-5):
    """Asserts that each result differs from float64's by less than `bound` of its norm."""
    arrays = [a.astype("f") for a in arrays]  # the same numbers on both
    exact = results(function, arrays, chainer.get_device("@numpy"), "d")
    found = results(function, arrays, gpu, "f")
    for expected, actual in zip(exact, found, strict=True):
        assert actual.shape == expected.shape and actual.dtype == np.float32
        assert np.linalg.norm(actual - expected) <= bound * np.linalg.norm(expected) + 1e-6
