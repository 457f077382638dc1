"""Dropout's masks on a GPU: Philox's published numbers, and what they depend on."""

import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import cuda

pytestmark = pytest.mark.gpu

# Of philox4x32-10 in kat_vectors of Random123 1.14: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_its_published_numbers(counter, key, result, gpu):
    from mnist_bn.gpu import masks

    kernel = cuda.elementwise(
        "raw uint32 key",
        "raw uint32 c, uint32 unused",
        "unsigned int own[4] = {c[0], c[1], c[2], c[3]}; philox(own, key[0], key[1]);"
        "for (int j = 0; j < 4; j++) c[j] = own[j];",
        "philox_known",
        preamble=masks.PHILOX,
    )
    found = gpu.send(words(counter))
    kernel(gpu.send(words(key)), found, gpu.xp.zeros(1, np.uint32))
    assert np.array_equal(cuda.to_cpu(found), words(result))


def mask(gpu, seed, clock, calls=1, ratio=0.5, shape=(40, 50)):
    """The mask of the last of so many calls of dropout in a step."""
    from mnist_bn.gpu import masks

    own = masks.Masks(seed)
    own.clock.fill(clock)
    with masks.using(own):
        for _ in range(calls):
            y = F.dropout(gpu.xp.ones(shape, np.float32), ratio)
    return cuda.to_cpu(y.array)


def test_masks_depend_on_seed_step_and_call_alone(gpu):
    first = mask(gpu, 0, 0)
    assert np.array_equal(first, mask(gpu, 0, 0))
    for other in (mask(gpu, 1, 0), mask(gpu, 0, 1), mask(gpu, 0, 1 << 32), mask(gpu, 0, 0, 2)):
        assert 0.4 < (first == other).mean() < 0.6  # of independent masks, one half


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_mask_keeps_its_share_and_scales_it(ratio, gpu):
    found = mask(gpu, 3, 7, ratio=ratio, shape=(200, 500))
    kept = found != 0
    assert abs(kept.mean() - (1 - ratio)) < 5 * np.sqrt(ratio * (1 - ratio) / kept.size)
    assert np.allclose(found[kept], 1 / (1 - ratio))


def test_the_gradient_has_the_same_mask(gpu):
    import chainer

    x = chainer.Variable(gpu.xp.ones((30, 30), np.float32))
    y = F.dropout(x, 0.3)
    y.grad = gpu.xp.ones_like(y.array)
    y.backward()
    assert np.array_equal(cuda.to_cpu(x.grad), cuda.to_cpu(y.array))
