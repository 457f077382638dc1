"""The device of a run, and why a GPU that was asked for is not there."""

from __future__ import annotations

import os
import re

import chainer

from mnist_bn.errors import UsageError

CPU = "CPU"

INSTALL_CUPY = (
    "install CuPy with `pip install -r requirements-cuda13.txt` (NVIDIA driver 580 or newer) "
    "or `pip install -r requirements-cuda12.txt` (older drivers)"
)


def resolve(specifier: str) -> chainer.backend.Device:
    """Returns Chainer's device for `specifier`, checked to be there.

    Args:
        specifier: "@numpy", "@cupy:N", or Chainer's short forms: an integer is a GPU, -1 the CPU.

    Raises:
        UsageError: there is no such device; the line says why and how to mend it.
    """
    normalized = _normalize(specifier)
    if gpu := re.fullmatch(r"@cupy:(\d+)", normalized):
        _compute_in_float32()
        _check_gpu(int(gpu[1]))
    try:
        return chainer.get_device(normalized)
    except Exception:
        raise UsageError(
            f"--device {specifier}: there is no such device here; "
            "expected @numpy for the CPU or @cupy:0 for the first GPU"
        ) from None


def describe(device: chainer.backend.Device) -> str:
    """Returns the device's name in plain words: "CPU", or the GPU's product name."""
    if device.xp is chainer.backends.cuda.cupy:
        properties = chainer.backends.cuda.cupy.cuda.runtime.getDeviceProperties(device.device.id)
        return properties["name"].decode()
    return CPU


def _normalize(specifier: str) -> str:
    try:
        gpu_id = int(specifier)
    except ValueError:
        return "@cupy:0" if specifier == "@cupy" else specifier
    return f"@cupy:{gpu_id}" if gpu_id >= 0 else "@numpy"


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
    """Returns one line on why that GPU cannot be used and what to do, None where it can."""
    try:
        import cupy
    except ModuleNotFoundError:
        return f"CuPy is not installed: {INSTALL_CUPY}"
    except Exception as error:
        return f"CuPy cannot be imported ({_first_line(error)}): uninstall it, then {INSTALL_CUPY}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return _why_no_device(cupy, error)
    if gpu_id >= count:
        return f"CUDA sees {count} GPU(s), numbered from 0: see `nvidia-smi -L`"
    try:
        with cupy.cuda.Device(gpu_id):
            cupy.arange(2).sum().item()
    except Exception as error:
        return (
            f"it cannot run a kernel ({_first_line(error)}): see `nvidia-smi`, and if CuPy does "
            f"not fit the driver, uninstall it and {INSTALL_CUPY}"
        )
    if not chainer.backends.cuda.available:
        reason = _first_line(chainer.backends.cuda._resolution_error)
        return f"CuPy does not find CUDA's libraries ({reason}): {INSTALL_CUPY}"
    return None


def _why_no_device(cupy, error: Exception) -> str:
    driver = cupy.cuda.runtime.driverGetVersion()
    if driver == 0:
        return "there is no NVIDIA driver: install it, or run without --gpu"
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    if driver // 1000 < runtime // 1000:
        return (
            f"the NVIDIA driver supports CUDA {_version(driver)} and this CuPy is built for "
            f"CUDA {_version(runtime)}: update the driver, or uninstall CuPy and {INSTALL_CUPY}"
        )
    return f"CUDA reports no usable GPU ({_first_line(error)}): see `nvidia-smi`"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
