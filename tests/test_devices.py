"""Devices: Chainer's specifiers, and why a GPU is not there."""

import sys
import types

import chainer
import pytest

from mnist_bn import devices
from mnist_bn.errors import UsageError


class FakeRuntimeError(Exception):
    pass


def fake_cupy(count, driver=13000, runtime=13000, kernel_error=None):
    """A CuPy on a machine with `count` devices; an exception as `count` is raised."""

    def get_device_count():
        if isinstance(count, Exception):
            raise count
        return count

    class Device:
        def __init__(self, device_id):
            pass

        def __enter__(self):
            if kernel_error:
                raise kernel_error

        def __exit__(self, *args):
            pass

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=get_device_count,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: runtime,
        ),
        Device=Device,
    )
    return cupy


def refusal(specifier):
    with pytest.raises(UsageError) as error:
        devices.resolve(specifier)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("specifier", ["-1", "@numpy", "-2"])
def test_cpu(specifier):
    device = devices.resolve(specifier)
    assert device.xp is chainer.backends.cuda.numpy
    assert devices.describe(device) == "CPU"


@pytest.mark.parametrize("specifier", ["0", "@cupy", "@cupy:0"])
def test_without_cupy(specifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert refusal(specifier) == (
        "GPU 0 was asked for, but CuPy is not installed: "
        "install CuPy with `pip install -r requirements-cuda13.txt` (NVIDIA driver 580 or newer) "
        "or `pip install -r requirements-cuda12.txt` (older drivers)"
    )


def test_without_a_driver(monkeypatch):
    cupy = fake_cupy(FakeRuntimeError("cudaErrorInsufficientDriver"), driver=0)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert refusal("0") == (
        "GPU 0 was asked for, but there is no NVIDIA driver: install it, or run without --gpu"
    )


def test_cupy_built_for_a_newer_cuda_than_the_drivers(monkeypatch):
    error = FakeRuntimeError("cudaErrorInsufficientDriver")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(error, driver=12040, runtime=13000))
    assert refusal("0").startswith(
        "GPU 0 was asked for, but the NVIDIA driver supports CUDA 12.4 and this CuPy is built for "
        "CUDA 13.0: update the driver, or uninstall CuPy and install CuPy with"
    )


def test_a_driver_and_no_device(monkeypatch):
    error = FakeRuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(error))
    assert refusal("0") == (
        "GPU 0 was asked for, but CUDA reports no usable GPU "
        "(cudaErrorNoDevice: no CUDA-capable device is detected): see `nvidia-smi`"
    )


def test_an_id_past_the_last(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(2))
    assert refusal("2") == (
        "GPU 2 was asked for, but CUDA sees 2 GPU(s), numbered from 0: see `nvidia-smi -L`"
    )


def test_a_cupy_that_cannot_run_a_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1, kernel_error=OSError("no libnvrtc")))
    assert refusal("@cupy:0").startswith(
        "GPU 0 was asked for, but it cannot run a kernel (no libnvrtc): see `nvidia-smi`, and"
    )


@pytest.mark.parametrize("specifier", ["@tpu", "gpu", "@cupy:x", "", "native:0"])
def test_a_specifier_that_is_none(specifier):
    assert refusal(specifier) == (
        f"--device {specifier}: there is no such device here; "
        "expected @numpy for the CPU or @cupy:0 for the first GPU"
    )
