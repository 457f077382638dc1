"""What the kernels' tests share."""

import pytest

from mnist_bn import kernels
from mnist_bn.kernels import build


@pytest.fixture(scope="session")
def library():
    """The kernels; without a C++ compiler the tests of kernels are skipped, and say so."""
    try:
        return build.load()
    except build.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def accelerated(library):
    """A test with the kernels on."""
    kernels.install("on")
    yield
    kernels.install("off")
