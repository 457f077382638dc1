"""Devices: Chainer's specifiers, and why a GPU is not there."""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import chainer
import numpy as np
import pytest

from mnist_bn import devices
from mnist_bn.errors import UsageError
from mnist_bn.terminal import wording

PROJECT = Path(devices.__file__).parents[1]


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
    cupy.arange = np.arange
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=get_device_count,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: runtime,
        ),
        Device=Device,
    )
    return cupy


@pytest.fixture(autouse=True)
def active_environment(monkeypatch):
    """The project's folder is the current one, and the environment's `pip` comes first."""
    monkeypatch.chdir(PROJECT)
    pip = str(Path(sys.executable).with_name("pip"))
    monkeypatch.setattr(wording.shutil, "which", lambda name: pip)


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


class FakeDriver:
    """NVIDIA's library of the driver, as ctypes loads it."""

    def __init__(self, version):
        self.version = version

    def cuDriverGetVersion(self, pointer):
        pointer._obj.value = self.version
        return 0


@pytest.mark.parametrize("specifier", ["0", "@cupy", "@cupy:0"])
@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (13010, "CuPy is not installed: `pip install -r requirements-cuda13.txt`"),
        (13000, "CuPy is not installed: `pip install -r requirements-cuda13.txt`"),
        (12040, "CuPy is not installed: `pip install -r requirements-cuda12.txt`"),
        (
            11040,
            "CuPy is not installed, and the NVIDIA driver supports CUDA 11.4 only: update the "
            "driver to 525 or newer first",
        ),
    ],
)
def test_without_cupy(specifier, version, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: FakeDriver(version))
    assert refusal(specifier) == f"GPU 0 was asked for, but {reason}"


@pytest.mark.parametrize("version", [13010, None])
def test_a_cupy_that_does_not_import(version, monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('no libcudart')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(devices, "_driver_version", lambda: version)
    reason = "CuPy cannot be imported (no libcudart): " if version else devices.NO_DRIVER
    assert refusal("0").startswith(f"GPU 0 was asked for, but {reason}")


def test_without_cupy_the_driver_is_looked_for_first(monkeypatch):
    def no_library(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(devices.ctypes, "CDLL", no_library)
    assert refusal("0") == (
        "GPU 0 was asked for, but there is no NVIDIA driver: install it, or run without --gpu"
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


@pytest.mark.parametrize(("gpus", "seen"), [(1, "1 GPU"), (2, "2 GPUs")])
def test_an_id_past_the_last(monkeypatch, gpus, seen):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(gpus))
    assert refusal("2") == (
        f"GPU 2 was asked for, but CUDA sees {seen}, numbered from 0: see `nvidia-smi -L`"
    )


def test_a_cupy_that_cannot_run_a_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1, kernel_error=OSError("no libnvrtc")))
    assert refusal("@cupy:0").startswith(
        "GPU 0 was asked for, but it cannot run a kernel (no libnvrtc): see `nvidia-smi`, and"
    )


def test_cudas_libraries_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    monkeypatch.setattr(chainer.backends.cuda, "available", False)
    missing = ImportError("libcublas.so.12: cannot open shared object file\nand more")
    monkeypatch.setattr(chainer.backends.cuda, "_resolution_error", missing, raising=False)
    assert refusal("0") == (
        "GPU 0 was asked for, but CuPy does not find CUDA's libraries "
        "(libcublas.so.12: cannot open shared object file): install CuPy with `pip install -r "
        "requirements-cuda13.txt` (NVIDIA driver 580 or newer) or `pip install -r "
        "requirements-cuda12.txt` (older drivers)"
    )


def test_a_gpu_computes_in_float32_and_repeatably(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    # Set first, for monkeypatch to put back what there was.
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    monkeypatch.setattr(chainer.global_config, "cudnn_deterministic", False)
    devices.resolve("@numpy")
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    refusal("0")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert chainer.global_config.cudnn_deterministic


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_with_cupy_and_no_gpu_the_command_says_so_in_one_line(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # where there is one, too
    process = subprocess.run(
        [sys.executable, "train_mnist.py", "--gpu", "--dataset", "digits", "--out", str(tmp_path)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith("train_mnist.py: GPU 0 was asked for, but ")
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_tests_that_require_a_gpu_fail_without_one():
    options = ["-p", "no:cacheprovider", "--require-gpu"]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/test_gpu.py"],
        cwd=PROJECT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert process.returncode == 1
    assert "no GPU 0: " in process.stdout
    assert "skipped" not in process.stdout


@pytest.mark.parametrize("specifier", ["@tpu", "gpu", "@cupy:x", "", "native:0"])
def test_a_specifier_that_is_none(specifier):
    assert refusal(specifier) == (
        f"--device {specifier}: there is no such device here; "
        "expected @numpy for the CPU or @cupy:0 for the first GPU"
    )
