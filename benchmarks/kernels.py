"""Time of each function of the networks, forward and backward, on every kind of implementation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import chainer
import chainer.functions as F
import numpy as np

import models
from benchmarks import chainer_runs

# (input channels, output channels, height and width of the input, and of the convolved map)
CONVOLUTIONS = ((1, 16, 28, 26), (16, 32, 13, 11), (32, 64, 6, 4))
LINEARS = ((256, 512), (512, 10))
NETWORK = "MnistCNN_BN_before"


@dataclass(frozen=True)
class Operation:
    """One function of the networks.

    Attributes:
        name: what the table calls it.
        shapes: shapes of its inputs, the image batch or feature maps first.
        chainer, torch: names of the function in `chainer.functions` and `torch.nn.functional`.
        chainer_options, torch_options: keyword arguments for them.
        from_images: its first input is data, for which nobody wants a gradient.
    """

    name: str
    shapes: list[tuple[int, ...]]
    chainer: str
    torch: str
    chainer_options: dict
    torch_options: dict
    from_images: bool = False


def operations(n: int) -> Iterator[Operation]:
    """Yields the functions of the networks at batch size `n`."""
    for i, (before, after, size, _) in enumerate(CONVOLUTIONS, 1):
        shapes = [(n, before, size, size), (after, before, 3, 3), (after,)]
        yield Operation(f"conv{i}", shapes, "convolution_2d", "conv2d", {}, {}, i == 1)
    maps = [(n, after, size, size) for _, after, _, size in CONVOLUTIONS]
    for i, shape in enumerate(maps, 1):
        channels = shape[1:2]
        shapes = [shape, channels, channels]
        options = {"eps": 2e-5}, {"eps": 2e-5, "training": True}
        yield Operation(f"bnorm{i}", shapes, "batch_normalization", "bn", *options)
    for i, shape in enumerate(maps, 1):
        yield Operation(f"relu{i}", [shape], "relu", "relu", {}, {})
    for i, shape in enumerate(maps, 1):
        options = {"ksize": 2}, {"kernel_size": 2, "ceil_mode": True}
        yield Operation(f"pool{i}", [shape], "max_pooling_2d", "max_pool2d", *options)
    for i, (before, after) in enumerate(LINEARS, 1):
        shapes = [(n, before), (after, before), (after,)]
        yield Operation(f"linear{i}", shapes, "linear", "linear", {}, {})
    options = {"ratio": 0.5}, {"p": 0.5}
    yield Operation("dropout", [(n, LINEARS[0][1])], "dropout", "dropout", *options)
    yield Operation("softmax + loss", [(n, 10)], "softmax_cross_entropy", "cross_entropy", {}, {})


def further_operations(n: int) -> Iterator[Operation]:
    """Yields functions that other people's networks take their time with, at batch size `n`."""
    for channels, size, stride in ((32, 32, 1), (96, 16, 2), (384, 8, 1)):  # MobileNetV2's
        shapes = [(n, channels, size, size), (channels, 1, 3, 3)]
        options = {"stride": stride, "groups": channels}
        yield Operation(
            f"depthwise {channels}",
            shapes,
            *("convolution_2d", "conv2d", {"pad": 1, **options}, {"padding": 1, **options}),
        )
    for before, after, size in ((256, 128, 8), (128, 64, 16)):  # DCGAN's generator's
        shapes = [(n, before, size, size), (before, after, 4, 4), (after,)]
        options = {"stride": 2, "pad": 1}, {"stride": 2, "padding": 1}
        yield Operation(
            f"deconv {before}", shapes, "deconvolution_2d", "conv_transpose2d", *options
        )
    maps = [(n, 64, 32, 32)]
    options = {"slope": 0.2}, {"negative_slope": 0.2}
    yield Operation("leaky_relu", maps, "leaky_relu", "leaky_relu", *options)
    options = {"ratio": 0.5}, {"p": 0.5}
    yield Operation("dropout of maps", maps, "dropout", "dropout", *options)
    for stride in (1, 2):  # GoogLeNet's
        options = {"ksize": 3, "stride": stride, "pad": 1}
        theirs = {"kernel_size": 3, "stride": stride, "padding": 1}
        yield Operation(f"max pool 3, {stride}", maps, "max_pooling_2d", "max_pool2d",
                        {**options, "cover_all": False}, theirs)  # fmt: skip
        yield Operation(
            f"mean pool 3, {stride}", maps, "average_pooling_2d", "avg_pool2d", options, theirs
        )


def measure(
    every: Iterable[Operation], variants: list[str], repeats: int, clock: Callable[[], float]
) -> list[dict]:
    """Measures functions: returns a dict for each and variant, for JSON."""
    makers = {
        "stock": lambda operation: _chainer_passes(operation, False, clock),
        "accelerated": lambda operation: _chainer_passes(operation, True, clock),
    }
    if importlib.util.find_spec("torch") is not None:
        from benchmarks import torch_kernels

        makers["torch"] = lambda operation: torch_kernels.passes(operation, clock)
    variants = [variant for variant in variants if variant in makers]
    results = []
    for operation in every:
        passes = {variant: makers[variant](operation) for variant in variants}
        results += _in_turns(operation.name, passes, repeats)
    return results


def measure_adam(variants: list[str], repeats: int, clock: Callable[[], float]) -> list[dict]:
    """Measures Adam's update, as `measure` does functions."""
    updates = {
        "stock": lambda: _chainer_update(False, clock),
        "accelerated": lambda: _chainer_update(True, clock),
    }
    if importlib.util.find_spec("torch") is not None:
        from benchmarks import torch_kernels

        updates["torch"] = lambda: torch_kernels.update(NETWORK, clock)
    wanted = [variant for variant in variants if variant in updates]
    return _in_turns("Adam", {variant: updates[variant]() for variant in wanted}, repeats)


def _in_turns(name: str, passes: dict[str, Callable], repeats: int) -> list[dict]:
    """Calls each of `passes` in turns; each returns seconds forward and backward."""
    times = {variant: [] for variant in passes}
    for _ in range(2 + repeats):
        for variant, run in passes.items():
            run()  # brings back this variant's part of the caches
            times[variant].append(run())
    results = []
    for variant, seconds in times.items():
        forward, backward = 1e3 * np.median(seconds[2:], axis=0)
        results.append({"what": name, "variant": variant, "forward": forward, "backward": backward})
    return results


def make_arrays(shapes: list[tuple[int, ...]], label_count: int | None = None) -> list[np.ndarray]:
    """Returns random arrays, float32, of the shapes; with `label_count`, labels int32 after."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, np.float32) for shape in shapes]
    if label_count is not None:
        arrays.append(rng.integers(0, label_count, shapes[0][0], np.int32))
    return arrays


def _chainer_passes(operation: Operation, accelerated: bool, clock: Callable) -> Callable:
    function = getattr(F, operation.chainer)
    loss = operation.name.endswith("loss")
    arrays = make_arrays(operation.shapes, 10 if loss else None)
    if accelerated and arrays[0].ndim == 4:
        arrays[0] = _nhwc(arrays[0])  # as the kernel before it would have left it
    gradient = None

    def run() -> tuple[float, float]:
        nonlocal gradient
        chainer_runs.switch(accelerated)
        inputs = [chainer.Variable(array) for array in arrays]
        if operation.from_images:
            inputs[0] = arrays[0]
        start = clock()
        y = function(*inputs, **operation.chainer_options)
        middle = clock()
        if gradient is None:
            gradient = np.ones_like(y.array)
        y.grad = gradient
        restart = clock()
        y.backward()
        return middle - start, clock() - restart

    return run


def _nhwc(array: np.ndarray) -> np.ndarray:
    """Returns the same array, (N, C, H, W), with its memory in the order (N, H, W, C)."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _chainer_update(accelerated: bool, clock: Callable) -> Callable:
    network = models.create(NETWORK)
    optimizer = chainer.optimizers.Adam().setup(network)
    for parameter in network.params():
        parameter.grad = 1e-3 * np.ones_like(parameter.array)

    def run() -> tuple[float, float]:
        chainer_runs.switch(accelerated)
        start = clock()
        optimizer.update()
        return clock() - start, 0.0

    return run


def print_table(results: list[dict], batchsize: int, of: str) -> None:
    """Prints forward and backward milliseconds, one function a line.

    Args:
        of: whose functions they are.
    """
    variants = list(dict.fromkeys(result["variant"] for result in results))
    print(f"\nms at batch {batchsize}, forward + backward (medians): {of}")
    print(f"{'':18}" + "".join(f"{variant:>22}" for variant in variants))
    totals = dict.fromkeys(variants, 0.0)
    for name in dict.fromkeys(result["what"] for result in results):
        cells = []
        for result in results:
            if result["what"] == name:
                totals[result["variant"]] += result["forward"] + result["backward"]
                cells.append(f"{result['forward']:.3f} + {result['backward']:.3f}")
        print(f"{name:18}" + "".join(f"{cell:>22}" for cell in cells))
    print(f"{'sum':18}" + "".join(f"{total:>22.3f}" for total in totals.values()))
