"""Random convolutions, accelerated beside stock: where is a kernel slower than what it replaces?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import chainer
import chainer.functions as F
import numpy as np
from chainer.functions.connection.convolution_2d import Convolution2DFunction, Convolution2DGradW

from benchmarks import chainer_runs

KERNELS = (1, 2, 3, 3, 4, 5, 7, 8, 11)
STRIDES = (1, 1, 2, 3, 4)
CHANNELS = (1, 3, 10, 16, 32, 64, 128, 256, 512, 1024)
SIZES = (4, 7, 8, 14, 16, 28, 32, 56, 112, 224)
BATCHES = (1, 8, 32, 100)
MOST_PRODUCTS = 600_000_000  # of a case, so that stock takes a second at most
MOST_FLOATS = 60_000_000  # of an array of a case, stock's matrix of windows included
SLOWER = 1.1  # a ratio that is more than noise


class Shape(NamedTuple):
    """A convolution of n square images."""

    n: int
    in_channels: int
    size: int
    out_channels: int
    kernel: int
    stride: int
    pad: int

    @property
    def out_size(self) -> int:
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    def fits(self) -> bool:
        """Returns whether there is such a convolution, and it takes no more than a second."""
        windows = self.n * self.out_size**2 * self.in_channels * self.kernel**2
        images = self.n * self.size**2 * self.in_channels
        return (
            self.size + 2 * self.pad >= self.kernel
            and windows * self.out_channels <= MOST_PRODUCTS
            and max(windows, images, self.n * self.out_size**2 * self.out_channels) <= MOST_FLOATS
        )


def shapes(seed: int = 0) -> Iterator[Shape]:
    """Yields random convolutions, without end; the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        kernel = rng.choice(KERNELS)
        pad = min(rng.choice((0, kernel // 2, 1, 2)), kernel - 1)
        shape = Shape(
            n=rng.choice(BATCHES),
            in_channels=rng.choice(CHANNELS),
            size=rng.choice(SIZES),
            out_channels=rng.choice(CHANNELS),
            kernel=kernel,
            stride=rng.choice(STRIDES),
            pad=pad,
        )
        if shape.fits():
            yield shape


def passes(shape: Shape, is_nhwc: bool) -> dict[str, Callable[[], object]]:
    """Returns the forward pass and both gradients, each ready to be called."""
    rng = np.random.default_rng(0)
    maps = (shape.n, shape.in_channels, shape.size), (shape.n, shape.out_channels, shape.out_size)
    x, gy = (rng.standard_normal((*m, m[-1]), np.float32) for m in maps)
    if is_nhwc:
        x, gy = (
            np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, gy)
        )
    w_shape = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel)
    w = rng.standard_normal(w_shape, np.float32)
    b = np.zeros(shape.out_channels, np.float32)
    options = {"stride": shape.stride, "pad": shape.pad}
    size = (shape.size, shape.size)

    def weight_gradient():
        function = Convolution2DFunction(**options)
        return Convolution2DGradW(function, w.shape, w.dtype, None).apply((x, gy))

    return {
        "forward": lambda: F.convolution_2d(x, w, b, **options),
        "gx": lambda: F.deconvolution_2d(gy, w, outsize=size, **options),
        "gw": weight_gradient,
    }


def measure(count: int, repeats: int, clock: Callable[[], float]) -> list[dict]:
    """Measures `count` convolutions: returns a dict for each pass and memory layout, for JSON."""
    results = []
    with chainer.no_backprop_mode():
        for _, shape in zip(range(count), shapes(), strict=False):
            for layout in ("NCHW", "NHWC"):
                for name, run in passes(shape, layout == "NHWC").items():
                    stock, accelerated = _in_turns(run, repeats, clock)
                    what = {**shape._asdict(), "layout": layout, "what": name}
                    results.append({**what, "stock": stock, "accelerated": accelerated})
    return results


def _in_turns(run: Callable, repeats: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Returns the median milliseconds of stock and accelerated Chainer."""
    times = ([], [])
    for _ in range(1 + repeats):
        for accelerated in (False, True):
            chainer_runs.switch(accelerated)
            start = clock()
            run()
            times[accelerated].append(1e3 * (clock() - start))
    stock, accelerated = (float(np.median(t[1:])) for t in times)
    return stock, accelerated


def print_table(results: list[dict]) -> None:
    """Prints the sums of each pass, and the cases in which the kernels are the slower ones."""
    for name in dict.fromkeys(result["what"] for result in results):
        chosen = [result for result in results if result["what"] == name]
        slower = [r for r in chosen if r["accelerated"] > SLOWER * r["stock"]]
        stock, accelerated = (sum(r[v] for r in chosen) for v in ("stock", "accelerated"))
        print(
            f"\n{name}: {len(chosen)} cases, stock {stock:.0f} ms, accelerated {accelerated:.0f} ms"
            f"; {len(slower)} more than {SLOWER:.2f} x stock"
        )
        for r in sorted(slower, key=lambda r: r["stock"] / r["accelerated"]):
            print(f"{r['accelerated'] / r['stock']:6.2f} x {r['stock']:.2f} ms  {_named(r)}")


def _named(result: dict) -> str:
    return (
        "n {n}, {in_channels} to {out_channels} channels, map {size}, "
        "kernel {kernel}/{stride}, pad {pad}, {layout}".format(**result)
    )
