"""A step's work and estimated time: the sizes against the networks, and sums by hand."""

import chainer
import pytest

import models
from benchmarks import kernels, roofline

BN_NETWORKS = ["MnistCNN_BN_before", "MnistCNN_BN_after", "MnistCNN_BN_linear_before"]
NETWORKS = ["MnistCNN", *BN_NETWORKS]


def find(works, name):
    (work,) = [work for work in works if work.name == name]
    return work


def test_the_sizes_are_the_networks():
    network, h = models.create("MnistCNN"), chainer.Variable
    h = h(chainer.backends.cuda.numpy.zeros((1, 1, 28, 28), "float32"))
    for i, (before, after, size, convolved, pooled) in enumerate(roofline.CONVOLUTIONS, 1):
        assert h.shape == (1, before, size, size)
        h = network[f"conv{i}"](h)
        assert h.shape == (1, after, convolved, convolved)
        h = chainer.functions.max_pooling_2d(h, 2)
        assert h.shape == (1, after, pooled, pooled)
    assert roofline.LINEARS == kernels.LINEARS


@pytest.mark.parametrize("name", NETWORKS)
def test_adam_reads_and_writes_every_parameter(name):
    parameters = models.create(name).count_params()
    assert find(roofline.step(name, 100), "Adam").bytes == 28 * parameters


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 100])
def test_flops_are_those_of_products_and_sums(name, n):
    # Two for each output and factor, forward, for the weights and for the data but the images.
    conv1, conv2, conv3 = 16 * 26**2 * 9, 32 * 11**2 * 16 * 9, 64 * 4**2 * 32 * 9
    products = 2 * conv1 + 3 * (conv2 + conv3 + 256 * 512 + 512 * 10)
    assert sum(work.flops for work in roofline.step(name, n)) == 2 * n * products


def test_bytes_by_hand():
    works = roofline.step("MnistCNN_BN_before", 2)
    assert find(works, "gather").bytes == 2 * 784 * 5
    assert find(works, "conv2").bytes == 4 * (2 * 16 * 169 + 32 * 16 * 9 + 2 * 32 * 121)
    assert find(works, "block2").bytes == 4 * 2 * 32 * (2 * 121 + 36)
    assert find(works, "block2 backward").bytes == 4 * 2 * 32 * (3 * 121 + 2 * 36)
    plain = roofline.step("MnistCNN", 2)
    assert find(plain, "block2").bytes == 4 * 2 * 32 * (121 + 36)
    assert find(plain, "block2 backward").bytes == 4 * 2 * 32 * (2 * 121 + 36)
    linear = roofline.step("MnistCNN_BN_linear_before", 2)
    assert find(linear, "bnorm4").bytes == 4 * 2 * 512 * 3
    assert find(linear, "bnorm5 backward").bytes == 4 * 2 * 10 * 5


def test_a_step_goes_forward_and_back():
    names = [work.name for work in roofline.step("MnistCNN_BN_linear_before", 1)]
    assert len(set(names)) == len(names)
    backward = [name.split()[0] for name in names if " " in name]
    forward = [name for name in names if name in backward]
    assert list(dict.fromkeys(backward)) == [
        *("bnorm5", "l2", "bnorm4", "l1"),
        *("block3", "conv3", "block2", "conv2", "block1", "conv1"),
    ]
    assert forward.index("conv1") == 0
    assert "conv1 data" not in names


def test_the_longer_of_arithmetic_and_memory_counts(capsys):
    rates = roofline.Rates(flops=100.0, bytes=10.0)
    assert roofline.Work("compute", 1000, 10).seconds(rates) == 10
    assert roofline.Work("memory", 100, 1000).seconds(rates) == 100
    summary = roofline.summarize("MnistCNN", 3, rates)
    assert summary["estimate_us"] == pytest.approx(sum(row["us"] for row in summary["functions"]))
    assert summary["estimate_us"] >= 1e6 * max(summary["flops"] / 100, summary["bytes"] / 10)
    roofline.print_table(summary)
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[0] == "all"
    assert float(last[1]) == pytest.approx(summary["flops"] / 1e6, abs=0.05)
