"""Compiles the GPU's kernels by NVIDIA's own compiler, for four generations of cards.

pip install nvidia-cuda-nvrtc
python tests/campaigns/nvrtc.py

It needs no card. The sizes are those of the blog's networks at batch 100 and of a ResNet.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "mnist_bn" / "gpu" / "kernels"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
# C, H, W, OC, OH, OW, stride, padding
CONVOLUTIONS = (
    (1, 28, 28, 16, 26, 26, 1, 0),
    (16, 13, 13, 32, 11, 11, 1, 0),
    (32, 6, 6, 64, 4, 4, 1, 0),
    (16, 32, 32, 32, 16, 16, 2, 1),
)
TILES = (16, 32, 64)
# CHANNELS, PLACES
NORMALIZED = ((16, 676), (64, 16), (512, 1))

Kernel = tuple[tuple[str, ...], dict[str, int]]


def kernels() -> Iterator[Kernel]:
    """Yields files, and what they are compiled for."""
    tiles = [
        {"TM": rows, "TN": columns, "DEPTH": depth}
        for rows, columns, depth in itertools.product(TILES, TILES, (16, 32))
    ]
    for tile, (a, b) in itertools.product(tiles, ((1, 1), (1, 0), (0, 0))):
        yield ("product", "linear"), {**tile, "A_IS_BY_K": a, "B_IS_BY_K": b}
    for c, h, w, oc, oh, ow, stride, padding in CONVOLUTIONS:
        sizes = {"C": c, "H": h, "W": w, "OC": oc, "KH": 3, "KW": 3, "OH": oh, "OW": ow}
        sizes |= {"SY": stride, "SX": stride, "PH": padding, "PW": padding}
        for tile, part in itertools.product(tiles[::4], ("forward", "data", "weights")):
            yield ("product", f"convolution_{part}"), {**tile, **sizes}
    for channels, places in NORMALIZED:
        yield ("block_sum", "batch_normalization"), {"CHANNELS": channels, "PLACES": places}
    yield ("block_sum", "losses"), {"CLASSES": 10}
    yield ("reduce",), {}
    yield ("updates",), {}


def load() -> ctypes.CDLL:
    """Returns NVRTC, of the package nvidia-cuda-nvrtc."""
    for folder in sys.path:
        for path in sorted(Path(folder).glob("nvidia/*/lib/libnvrtc.so.*")):
            return ctypes.CDLL(str(path))
    sys.exit("nvrtc.py: no NVRTC here; pip install nvidia-cuda-nvrtc")


def complaint(nvrtc: ctypes.CDLL, kernel: Kernel, architecture: str) -> str | None:
    """Compiles for an architecture; returns the compiler's words if it fails."""
    files, sizes = kernel
    source = "".join((KERNELS / f"{file}.cu").read_text(encoding="utf-8") for file in files)
    options = [f"-arch={architecture}", "-std=c++17", *(f"-D{k}={v}" for k, v in sizes.items())]
    as_c = (ctypes.c_char_p * len(options))(*map(str.encode, options))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(program, len(options), as_c)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode() or "failed" if failed else None


def main() -> int:
    """Compiles all for all; returns the exit status."""
    nvrtc, status = load(), 0
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    print(f"NVRTC {major.value}.{minor.value}")
    for architecture in ARCHITECTURES:
        count = 0
        for kernel in kernels():
            words = complaint(nvrtc, kernel, architecture)
            if words is not None:
                print(f"{architecture}: {kernel}: {words}")
                status = 1
            count += words is None
        print(f"{architecture}: {count} builds of {len(list(KERNELS.glob('*.cu')))} files")
    return status


if __name__ == "__main__":
    sys.exit(main())
