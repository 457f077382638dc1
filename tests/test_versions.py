"""Which versions are refused, and in which words."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_bn import versions

PROJECT = Path(__file__).parents[1]


def run_python(code, folder):
    """Runs code in a fresh Python that finds modules in `folder` too; returns its output."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{folder}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.fixture
def installed(monkeypatch):
    """What importlib.metadata says is installed, to be changed by the test."""
    found = {"numpy": "2.4.6", "chainer": versions.CHAINER}

    def version(name):
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


@pytest.mark.parametrize("numpy", ["2.0.0", "2.5.5", "2.0.0rc1"])
@pytest.mark.parametrize(
    "cupy", [{}, {"cupy": "13.0.0"}, {"cupy-cuda12x": "13.6.0"}, {"cupy-cuda13x": "14.2.0"}]
)
@pytest.mark.parametrize("python", [(3, 11, 7), (3, 12, 1), (3, 13, 0)])
def test_supported_versions(installed, monkeypatch, numpy, cupy, python):
    installed.update(cupy, numpy=numpy)
    monkeypatch.setattr(sys, "version_info", python)
    versions.check()


@pytest.mark.parametrize(
    ("changes", "found", "remedy"),
    [
        ({"numpy": "1.26.4"}, "NumPy 1.26.4", "pip install -r requirements.txt"),
        ({"numpy": "2.6.0"}, "NumPy 2.6.0", "pip install -r requirements.txt"),
        ({"numpy": None}, "no NumPy", "pip install -r requirements.txt"),
        ({"chainer": None}, "no Chainer", "pip install -r requirements.txt"),
        ({"chainer": "7.8.0"}, "Chainer 7.8.0", "pip install -r requirements.txt"),
        ({"chainer": "7.8.1"}, "Chainer 7.8.1,", "pip install -r requirements.txt"),
        ({"cupy-cuda11x": "12.3.0"}, "cupy-cuda11x 12.3.0", "pip uninstall cupy-cuda11x`"),
        ({"cupy": "15.0.0"}, "cupy 15.0.0", "pip install -r requirements-cuda12.txt"),
        (
            {"cupy-cuda12x": "13.6.0", "cupy-cuda13x": "14.2.0"},
            "cupy-cuda12x 13.6.0, cupy-cuda13x 14.2.0",
            "pip uninstall cupy-cuda12x cupy-cuda13x`",
        ),
    ],
)
def test_unsupported_versions(installed, changes, found, remedy):
    installed.update(changes)
    for name in [name for name, version in installed.items() if version is None]:
        del installed[name]
    with pytest.raises(versions.UnsupportedVersions) as error:
        versions.check()
    line = str(error.value)
    assert "\n" not in line
    assert found in line
    assert versions.SUPPORTED in line
    assert remedy in line


@pytest.mark.parametrize("python", [(3, 8, 18), (3, 10, 13), (3, 14, 0)])
def test_unsupported_python(installed, monkeypatch, python):
    installed.clear()
    monkeypatch.setattr(sys, "version_info", python)
    with pytest.raises(
        ImportError, match=r"found Python 3\.\d+\.\d+, no NumPy, .*: make a virtual"
    ):
        versions.check()


def fake_distribution(folder, name, version):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_install_refuses(tmp_path):
    fake_distribution(tmp_path, "cupy-cuda11x", "12.3.0")
    code = "try:\n import mnist_bn\nexcept ImportError as error:\n print(error)"
    line = run_python(code, tmp_path)
    assert "cupy-cuda11x 12.3.0" in line
    assert versions.SUPPORTED in line


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
def test_chainer_does_not_warn_of_a_supported_cupy(tmp_path):
    fake_distribution(tmp_path, "cupy", "14.2.0")
    run_python("import mnist_bn, chainer", tmp_path)


def test_label_is_that_of_the_build():
    path = PROJECT / "chainer-build" / "mends.py"
    spec = importlib.util.spec_from_file_location("mends", path)
    mends = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mends)
    assert versions.CHAINER == "7.8.1" + mends.LABEL
