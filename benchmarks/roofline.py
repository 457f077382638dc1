"""What a training step computes and moves, and the time if every array comes from main memory.

The step is cut into the functions between which all of a batch must be done: convolution, Batch
Normalization with its ReLU and pooling, linear layer, loss, update. Each reads its arrays once and
writes its results once, float32; ReLU, dropout and biases ride along and cost nothing. BN reads its
maps twice each way: the first time for the statistics or their gradients. A function takes the
longer of its arithmetic at the measured matrix rate and its bytes at the measured copy rate.
That is an estimate and no lower bound: what stays in the GPU's L2 cache between functions, or is
fused, moves faster. At batch 100 the largest function moves 15 MB, and an H200's L2 holds some 50.
(S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009.)
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass

IMAGE = 784
CLASSES = 10
# As in benchmarks/kernels.py: channels before and after, size of the input, of the convolved map
# and of the pooled one.
CONVOLUTIONS = ((1, 16, 28, 26, 13), (16, 32, 13, 11, 6), (32, 64, 6, 4, 2))
LINEARS = ((256, 512), (512, CLASSES))
FLOAT = 4
TAPS = 9
# Adam reads the parameter, its gradient and two moments, and writes all but the gradient.
ADAM_ARRAYS = 7


@dataclass(frozen=True)
class Work:
    """One function of a step: its name, floating-point operations, and bytes read and written."""

    name: str
    flops: int
    bytes: int

    def seconds(self, rates: Rates) -> float:
        """Returns the time of its arithmetic or its bytes at `rates`, whichever is longer."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)


@dataclass(frozen=True)
class Rates:
    """What a GPU was measured to do in a second: matrix-product operations, and bytes copied."""

    flops: float
    bytes: float


def step(model: str, n: int) -> list[Work]:
    """Returns the work of one training step with Adam, in the order that it is done.

    Args:
        model: class name of a network of the blog.
        n: images a batch.
    """
    normalized = model != "MnistCNN"
    normalized_linear = model == "MnistCNN_BN_linear_before"
    # Gather: bytes in, floats out.
    forward, backward = [Work("gather", 0, n * IMAGE * (1 + FLOAT))], []
    parameters = 0
    for i, (before, after, size, convolved, pooled) in enumerate(CONVOLUTIONS, 1):
        x, weights = n * before * size**2, after * before * TAPS
        y, z = n * after * convolved**2, n * after * pooled**2
        flops = 2 * y * before * TAPS
        forward += [
            _work(f"conv{i}", flops, x + weights + y),
            _work(f"block{i}", 0, (1 + normalized) * y + z),
        ]
        data = [_work(f"conv{i} data", flops, y + weights + x)] if i > 1 else []
        backward[:0] = [
            # Again: gradient and maps in, once or twice, and the maps' gradient out.
            _work(f"block{i} backward", 0, (1 + normalized) * (y + z) + y),
            _work(f"conv{i} weights", flops, x + y + weights),
            *data,
        ]
        parameters += weights + after + 2 * after * normalized
    for i, (before, after) in enumerate(LINEARS, 1):
        x, weights, y = n * before, before * after, n * after
        flops = 2 * n * weights
        linear = _work(f"l{i}", flops, x + weights + y)
        forward.append(linear)
        gradients = [
            _work(f"l{i} weights", flops, x + y + weights),
            _work(f"l{i} data", flops, y + weights + x),
        ]
        if normalized_linear:
            forward.append(_work(f"bnorm{i + 3}", 0, 3 * y))
            gradients.insert(0, _work(f"bnorm{i + 3} backward", 0, 5 * y))
        backward[:0] = gradients
        parameters += weights + after + 2 * after * normalized_linear
    loss = _work("loss", 0, 2 * n * CLASSES)
    return [*forward, loss, *backward, _work("Adam", 0, ADAM_ARRAYS * parameters)]


def _work(name: str, flops: int, floats: int) -> Work:
    return Work(name, flops, FLOAT * floats)


def summarize(model: str, n: int, rates: Rates) -> dict:
    """Returns a step's work and the estimate of its time from main memory, for JSON."""
    works = step(model, n)
    return {
        "model": model,
        "batch": n,
        "flops": sum(work.flops for work in works),
        "bytes": sum(work.bytes for work in works),
        "estimate_us": 1e6 * sum(work.seconds(rates) for work in works),
        "functions": [
            {"name": w.name, "flops": w.flops, "bytes": w.bytes, "us": 1e6 * w.seconds(rates)}
            for w in works
        ],
    }


def print_table(summary: dict) -> None:
    """Prints a step's work, one function a line."""
    print(
        f"\n{summary['model']}, batch {summary['batch']}: a training step, and an estimate of its "
        "time if every array comes from main memory"
    )
    print(f"  {'':18}{'MFLOP':>10}{'MB':>10}{'us':>10}")
    total = {"name": "all", "us": summary["estimate_us"], **summary}
    for row in [*summary["functions"], total]:
        megas = f"{row['flops'] / 1e6:10.1f}{row['bytes'] / 1e6:10.2f}"
        print(f"  {row['name']:18}{megas}{row['us']:10.2f}")


def measure_rates() -> Rates:
    """Measures the current GPU: a float32 matrix product, and a copy within its memory."""
    import cupy

    size, count = 8192, 2**28
    a, b = (cupy.random.rand(size, size, dtype=cupy.float32) for _ in range(2))
    source = cupy.zeros(count, cupy.float32)
    target = cupy.empty_like(source)
    return Rates(
        2 * size**3 / _seconds(lambda: cupy.matmul(a, b)),
        2 * source.nbytes / _seconds(lambda: cupy.copyto(target, source)),
    )


def _seconds(function, repeats: int = 20) -> float:
    """Returns the median time of `function` on the GPU; the first few warm up."""
    from benchmarks.device_clock import cupy_clock

    moments = [cupy_clock()]
    for _ in range(repeats + 3):
        function()
        moments.append(cupy_clock())
    return statistics.median(after - before for before, after in itertools.pairwise(moments[3:]))
