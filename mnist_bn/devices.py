"""The device of a run, and why a GPU that was asked for is not there."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING, TypeAlias

import chainer
import numpy as np

from mnist_bn.errors import UsageError
from mnist_bn.terminal import wording

if TYPE_CHECKING:
    import cupy

# Of the CPU or a GPU. Chainer's own type has ChainerX's arrays too, which we never meet.
NdArray: TypeAlias = "np.ndarray | cupy.ndarray"

CPU = "CPU"

NO_DRIVER = "there is no NVIDIA driver: install it, or run without --gpu"


def resolve(specifier: str) -> chainer.backend.Device:
    """Returns Chainer's device for `specifier`, checked to be there.

    Args:
        specifier: "@numpy", "@cupy:N", or Chainer's short forms: an integer is a GPU, -1 the CPU.

    Raises:
        UsageError: there is no such device; the line says why and how to mend it.
    """
    long = normalized(specifier)
    if gpu := re.fullmatch(r"@cupy:(\d+)", long):
        _compute_in_float32()
        _check_gpu(int(gpu[1]))
    try:
        return chainer.get_device(long)
    except Exception:
        raise UsageError(
            f"--device {specifier}: there is no such device here; "
            "expected @numpy for the CPU or @cupy:0 for the first GPU"
        ) from None


def normalized(specifier: str) -> str:
    """Returns the long form of a device specifier: "@cupy:0" for "0", "@numpy" for "-1"."""
    try:
        gpu_id = int(specifier)
    except ValueError:
        return "@cupy:0" if specifier == "@cupy" else specifier
    return f"@cupy:{gpu_id}" if gpu_id >= 0 else "@numpy"


def describe(device: chainer.backend.Device) -> str:
    """Returns the device's name in plain words: "CPU", or the GPU's product name."""
    if isinstance(device, chainer.backend.GpuDevice):
        properties = chainer.backends.cuda.cupy.cuda.runtime.getDeviceProperties(device.device.id)
        return properties["name"].decode()
    return CPU


def _compute_in_float32() -> None:
    """Keeps the GPU's numbers as close to the CPU's, and as repeatable, as they can be.

    cuDNN, which CuPy 13 may use, by itself rounds factors to TF32 (10 bits) on cards since 2020
    and adds up gradients in any order. CuPy's own matrix products do neither.
    """
    # Its libraries read it when they are first used.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    chainer.global_config.cudnn_deterministic = True


def _check_gpu(gpu_id: int) -> None:
    reason = why_no_gpu(gpu_id)
    if reason:
        raise UsageError(f"GPU {gpu_id} was asked for, but {reason}")


def why_no_gpu(gpu_id: int) -> str | None:
    """Returns one line on why that GPU cannot be used and what to do, None if it can."""
    try:
        import cupy
    except ModuleNotFoundError:
        return _why_no_cupy()
    except Exception as error:
        if _driver_version() is None:
            return NO_DRIVER
        return f"CuPy cannot be imported ({_first_line(error)}): uninstall it, then {_install()}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return _why_no_device(cupy, error)
    if gpu_id >= count:
        seen = wording.count(count, "GPU")
        return f"CUDA sees {seen}, numbered from 0: see `nvidia-smi -L`"
    try:
        with cupy.cuda.Device(gpu_id):
            cupy.arange(2).sum().item()
    except Exception as error:
        return (
            f"it cannot run a kernel ({_first_line(error)}): see `nvidia-smi`, and if CuPy does "
            f"not fit the driver, uninstall it and {_install()}"
        )
    if not chainer.backends.cuda.available:
        reason = _first_line(chainer.backends.cuda._resolution_error)
        return f"CuPy does not find CUDA's libraries ({reason}): {_install()}"
    return None


def _install() -> str:
    newer, older = (wording.pip_install(f"requirements-cuda{cuda}.txt") for cuda in (13, 12))
    return f"install CuPy with `{newer}` (NVIDIA driver 580 or newer) or `{older}` (older drivers)"


def _why_no_cupy() -> str:
    driver = _driver_version()
    if driver is None:
        return NO_DRIVER
    for cuda in (13, 12):
        if driver >= 1000 * cuda:
            install = wording.pip_install(f"requirements-cuda{cuda}.txt")
            return f"CuPy is not installed: `{install}`"
    return (
        f"CuPy is not installed, and the NVIDIA driver supports CUDA {_version(driver)} only: "
        "update the driver to 525 or newer first"
    )


def _driver_version() -> int | None:
    """Returns the CUDA version that the NVIDIA driver supports, as 12040 for 12.4; None: no driver.

    Asks the driver's own library, as CuPy does.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        version = ctypes.c_int()
        return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


def _why_no_device(cupy, error: Exception) -> str:
    driver = cupy.cuda.runtime.driverGetVersion()
    if driver == 0:
        return NO_DRIVER
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    if driver // 1000 < runtime // 1000:
        return (
            f"the NVIDIA driver supports CUDA {_version(driver)} and this CuPy is built for "
            f"CUDA {_version(runtime)}: update the driver, or uninstall CuPy and {_install()}"
        )
    return f"CUDA reports no usable GPU ({_first_line(error)}): see `nvidia-smi`"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
